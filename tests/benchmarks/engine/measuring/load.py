"""Requests at one engine: how many tokens a second, how long to the first, and how long between two."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eul_serve.engine.compat import SamplingParams, delta_outputs, make_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is sent."""

    requests: int
    """Requests, all at once."""
    prompt: int
    """Tokens of every prompt."""
    answer: int
    """Tokens of every answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one measurement found."""

    tokens_per_second: float
    """Tokens of prompts and answers, by the time from the first request to the last answer."""
    first: list[float]
    """Seconds to each request's first token."""
    between: list[float]
    """Seconds between two tokens of an answer."""


def pick(adapters: Sequence[Any], requests: int, kind: str, seed: int) -> list[Any]:
    """Return the adapter of every request: in turns, or by Zipf's law with exponent 1."""
    if not adapters:
        return [None] * requests
    if kind == "even":
        return [adapters[number % len(adapters)] for number in range(requests)]
    weights = [1 / rank for rank in range(1, len(adapters) + 1)]
    return random.Random(seed).choices(list(adapters), weights, k=requests)


async def measure(llm: Any, traffic: Traffic, chosen: Sequence[Any], run: str) -> Found:
    """Send requests and return what came of them."""
    first: list[float] = []
    between: list[float] = []

    vocabulary = llm.model_config.get_vocab_size()

    async def one(number: int, adapter: Any) -> None:
        generator = random.Random(number)
        prompt = make_prompt([generator.randrange(vocabulary) for _ in range(traffic.prompt)], run)
        params = SamplingParams(
            max_tokens=traffic.answer, ignore_eos=True, temperature=0.0, detokenize=False, output_kind=delta_outputs()
        )
        times = [time.perf_counter()]
        async for _ in llm.generate(prompt, params, f"{run}-{number}", lora_request=adapter):
            times.append(time.perf_counter())
        steps = [after - before for before, after in itertools.pairwise(times)]
        first.append(steps[0])
        between.extend(steps[1:])

    begin = time.perf_counter()
    await asyncio.gather(*(one(number, adapter) for number, adapter in enumerate(chosen)))
    seconds = time.perf_counter() - begin
    tokens = traffic.requests * (traffic.prompt + traffic.answer)
    return Found(tokens_per_second=tokens / seconds, first=first, between=between)


def summary(runs: Sequence[Found]) -> dict[str, float]:
    """Return the medians and spread of some measurements; latencies over all their requests."""
    speeds = [run.tokens_per_second for run in runs]
    first = [seconds for run in runs for seconds in run.first]
    between = [seconds for run in runs for seconds in run.between]
    found = {"tokens_per_second": statistics.median(speeds), "least": min(speeds), "most": max(speeds)}
    for name, values in (("first_token_ms", first), ("between_tokens_ms", between)):
        if values:
            found[f"{name}_median"] = 1000 * statistics.median(values)
            found[f"{name}_p99"] = 1000 * sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]
    return found
