"""Beam search over single steps of an engine: the answers that are likeliest as a whole, not token by token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from heapq import nlargest

Step = Callable[[tuple[int, ...]], Awaitable[Mapping[int, float]]]
"""From the tokens made so far to the likeliest next ones, with their log-probabilities in nats."""


@dataclass(frozen=True, slots=True)
class Beam:
    """An answer, or the beginning of one."""

    tokens: tuple[int, ...] = ()
    """What was made."""
    logprobs: tuple[float, ...] = ()
    """Log-probability of each token in nats."""
    ended: bool = False
    """Whether its last token ends an answer."""

    @property
    def total(self) -> float:
        """Log-probability of all of it in nats."""
        return sum(self.logprobs)

    @property
    def score(self) -> float:
        """The same for each token, so that short and long answers compare."""
        return self.total / max(1, len(self.logprobs))

    def then(self, token: int, logprob: float, ends: Collection[int]) -> Beam:
        """Return the answer with one more token."""
        return Beam((*self.tokens, token), (*self.logprobs, logprob), token in ends)


async def search(step: Step, width: int, max_tokens: int, ends: Collection[int]) -> list[Beam]:
    """Return the best answers that a beam of some width finds.

    As in vLLM and transformers: at each step all beginnings are continued, and the likeliest stay; what has ended
    is set aside; at the end the mean log-probability of a token decides.

    Args:
        step: The engine; returns at least `width` tokens besides those that end an answer.
        width: Beginnings to keep, and answers to return, 1 or more.
        max_tokens: Longest answer.
        ends: Tokens that end an answer.

    Returns:
        The answers, the best first.
    """
    live, done = [Beam()], []
    for _ in range(max_tokens):
        grown = [
            beam.then(token, logprob, ends)
            for beam, nexts in zip(live, await _all(step, live), strict=True)
            for token, logprob in nexts.items()
        ]
        done += [beam for beam in grown if beam.ended]
        live = nlargest(width, (beam for beam in grown if not beam.ended), key=lambda beam: beam.total)
        if not live:
            break
    return nlargest(width, [*done, *live], key=lambda beam: beam.score)


async def _all(step: Step, live: list[Beam]) -> list[Mapping[int, float]]:
    """Run one step of all beginnings at once; where one fails, or the caller leaves, all end."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(step, beam)) for beam in live]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


async def _one(step: Step, beam: Beam) -> Mapping[int, float]:
    return await step(beam.tokens)
