"""Bundles beside what vLLM does with requests by itself: each feature leaves every answer as transformers has it.

One engine has them all: two processes share every block (tensor parallelism), prompts are read in parts, and the cache
is too small for the batch, so that requests are put off and begun again. Speculative decoding is refused in words
(`test_settings_that_break_isolation_are_refused`); so are pipelines on a CPU (`test_what_a_cpu_cannot_do_is_refused`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch

from eul_serve.engine.base import Constraint, ResidentBundle
from eul_serve.engine.settings import EngineSettings

from .conftest import answer, metric, place, work
from .reference import greedy_answers, hooked, load

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

STEP_TOKENS, TOKENS = 32, 60
# Five blocks of 128 tokens in each process: 2 blocks, keys and values, 1 head of 32, 4 bytes.
CACHE_GIB = 5 * 128 * 2 * 2 * 32 * 4 / 2**30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path) -> AsyncIterator[Any]:
    from eul_serve.engine.vllm_engine import VllmEngine

    engine = await VllmEngine.start(
        EngineSettings(
            model=tiny_model,
            max_context=256,
            slots=2,
            capacity=4,
            max_rank=16,
            deny_base=False,
            kv_cache_gib=CACHE_GIB,
            max_batch=8,
            max_batch_tokens=STEP_TOKENS,
            tensor_parallel=2,
            turn_seconds=0.05,
        )
    )
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bundles(engine: Any, tiny_model: Path, make_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("features")
    kinds = {"first": ("relu", 4), "second": ("silu", 16), "third": ("relu", 4)}
    found = {}
    for seed, (name, (activation, rank)) in enumerate(kinds.items()):
        made = make_bundle(root / name, tiny_model, seed=seed, rank=rank, scale=1.0, activation=activation)
        found[name] = place(made, root / "cache")
        await engine.load(found[name])
    return found


async def test_prompts_in_parts_and_requests_put_off_in_two_processes(
    engine: Any, bundles: dict[str, ResidentBundle], tiny_model: Path
) -> None:
    names: dict[str, ResidentBundle | None] = {**bundles, "base": None}
    # Prompts of four parts; prompt and answer need two blocks, of which the cache has five for eight requests.
    expected = greedy_answers(tiny_model, names, tokens=TOKENS, lengths=(100,), count=3)
    put_off = metric("vllm:num_preemptions_total")
    jobs = [
        (work(names[name], prompt, max_tokens=TOKENS), wanted)
        for name, answers in expected.items()
        for prompt, wanted in answers
    ]
    answers = await asyncio.gather(*(answer(engine, job) for job, _ in jobs))
    for (_, wanted), (found, _) in zip(jobs, answers, strict=True):
        assert tuple(found) == wanted[: len(found)]
        assert len(found) == TOKENS or found[-1] == 1  # the end token
    assert metric("vllm:num_preemptions_total") > put_off


async def test_a_constrained_choice_is_made_with_the_bundle_on(
    engine: Any, bundles: dict[str, ResidentBundle], tiny_model: Path
) -> None:
    from transformers import AutoTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [AutoTokenizer.from_pretrained(tiny_model).convert_tokens_to_ids(letter) for letter in letters]
    one_of = Constraint(kind="choice", texts=tuple(letters))
    prompt, model, chosen = tuple(range(10, 60)), load(tiny_model), []
    for bundle in (*bundles.values(), None):
        with torch.inference_mode(), hooked(model, bundle):
            logits = model(torch.tensor([prompt])).logits[0, -1]
        found, _ = await answer(engine, work(bundle, prompt, max_tokens=1, constraint=one_of))
        assert found == [tokens[int(logits[tokens].argmax())]]
        chosen += found
    assert len(set(chosen)) > 1  # the bundles do change the choice
