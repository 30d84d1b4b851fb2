"""Beam search on a small language made by hand, against every answer that there is."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.engine.beams import Beam, Step, search
from eul_serve.errors import EngineError

END = 0


def language(seed: int, words: int, likeliest: int | None = None) -> Step:
    """The next token's distribution, which depends on all tokens before; a real engine tells the likeliest alone."""

    async def step(made: tuple[int, ...]) -> Mapping[int, float]:
        draw = random.Random(f"{seed}-{made}")
        weights = [draw.expovariate(1.0) for _ in range(words)]
        told = {token: math.log(weight / sum(weights)) for token, weight in enumerate(weights)}
        return dict(sorted(told.items(), key=lambda pair: -pair[1])[:likeliest])

    return step


async def every_answer(step: Step, words: int, longest: int) -> list[Beam]:
    """All answers: those that end, and those of full length."""
    found = []
    for length in range(1, longest + 1):
        for tokens in itertools.product(range(words), repeat=length):
            if END in tokens[:-1] or (tokens[-1] != END and length < longest):
                continue
            beam = Beam()
            for token in tokens:
                beam = beam.then(token, (await step(beam.tokens))[token], {END})
            found.append(beam)
    return sorted(found, key=lambda beam: -beam.score)


@given(st.integers(0, 1000), st.integers(1, 4))
def test_a_beam_that_holds_everything_finds_the_best(seed: int, longest: int) -> None:
    words = 3

    async def check() -> None:
        step = language(seed, words)
        best = (await every_answer(step, words, longest))[:5]
        found = (await search(step, words**longest, longest, {END}))[:5]
        assert found == best

    asyncio.run(check())


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 6))
def test_answers_are_different_in_order_and_as_many_as_asked_for(seed: int, width: int, longest: int) -> None:
    found = asyncio.run(search(language(seed, 12, 2 * width), width, longest, {END}))
    assert len({beam.tokens for beam in found}) == len(found) == width
    assert [beam.score for beam in found] == sorted((beam.score for beam in found), reverse=True)
    for beam in found:
        assert beam.ended == (beam.tokens[-1] == END)
        assert beam.ended or len(beam.tokens) == longest


@given(st.integers(0, 1000), st.integers(1, 6))
def test_one_beam_without_an_end_is_greedy(seed: int, longest: int) -> None:
    async def greedy() -> tuple[int, ...]:
        step, made = language(seed, 6), ()
        for _ in range(longest):
            told = await step(made)
            made = (*made, max(told, key=lambda token: told[token]))
        return made

    (found,) = asyncio.run(search(language(seed, 6), 1, longest, ()))
    assert found.tokens == asyncio.run(greedy())


async def test_a_step_that_fails_ends_the_others() -> None:
    ended = []

    async def step(made: tuple[int, ...]) -> Mapping[int, float]:
        if not made:
            return {1: -1.0, 2: -2.0}
        if made == (1,):
            raise EngineError("the engine died")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(made)
        return {}

    with pytest.raises(EngineError, match="died"):
        await search(step, 2, 3, {END})
    assert ended == [(2,)]
