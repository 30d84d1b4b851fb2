"""What narrows, bends, multiplies or shows the choice of tokens, with a bundle on."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
import torch

from eul_serve.engine.base import Constraint, ResidentBundle, Work
from eul_serve.errors import InputError

from .conftest import PROMPT, answer, work
from .reference import hooked, load

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def bundle(engine: Any, new_bundle: Callable[..., ResidentBundle]) -> AsyncIterator[ResidentBundle]:
    bundle = new_bundle(71)
    await engine.load(bundle)
    yield bundle
    await engine.unload(bundle)


async def text(engine: Any, job: Work) -> str:
    return "".join([piece.text async for piece in engine.generate(job)])


@pytest.mark.parametrize(
    ("kind", "given", "form"),
    [
        ("choice", ("yes", "no", "maybe"), "yes|no|maybe"),
        ("regex", ("[0-9]{3}-[a-f]{2}",), "[0-9]{3}-[a-f]{2}"),
        ("grammar", ('root ::= "a" root | "b"',), "a*b|a+"),
        ("json_schema", ('{"type": "boolean"}',), "true|false"),
    ],
)
async def test_an_answer_keeps_to_its_constraint(
    engine: Any, bundle: ResidentBundle, kind: Literal["choice"], given: tuple[str, ...], form: str
) -> None:
    for held in (bundle, None):
        job = work(held, max_tokens=12, constraint=Constraint(kind=kind, texts=given))
        assert re.fullmatch(form, await text(engine, job))


async def test_a_schema_s_answer_is_json(engine: Any, bundle: ResidentBundle) -> None:
    schema = json.dumps({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2})
    found = json.loads(
        await text(engine, work(bundle, max_tokens=60, constraint=Constraint(kind="json_schema", texts=(schema,))))
    )
    assert {type(one) for one in found} == {bool}


@pytest.mark.parametrize(("kind", "given"), [("regex", "("), ("json_schema", "{"), ("grammar", "root ::= ")])
async def test_a_constraint_that_is_none_gets_one_line(
    engine: Any, bundle: ResidentBundle, kind: Literal["regex"], given: str
) -> None:
    with pytest.raises(InputError, match=f"sampling.constraint.{kind}: ") as error:
        await answer(engine, work(bundle, constraint=Constraint(kind=kind, texts=(given,))))
    assert "\n" not in str(error.value)
    await answer(engine, work(bundle))  # and harms nobody


async def test_only_allowed_tokens_are_chosen_and_the_likeliest_of_them(
    engine: Any, bundle: ResidentBundle, tiny_model: Path
) -> None:
    allowed = (40, 41, 42, 43)
    tokens, _ = await answer(engine, work(bundle, allowed_tokens=allowed))
    assert set(tokens) <= set(allowed)
    with torch.inference_mode(), hooked(load(tiny_model), bundle) as model:
        logits = model(torch.tensor([PROMPT])).logits[0, -1]
    assert tokens[0] == allowed[int(logits[list(allowed)].argmax())]


async def test_a_bias_moves_the_choice(engine: Any, bundle: ResidentBundle) -> None:
    plain, _ = await answer(engine, work(bundle))
    assert 77 not in plain
    assert (await answer(engine, work(bundle, logit_bias={77: 100.0})))[0] == [77] * 6


async def test_several_answers_are_each_what_its_pieces_say(engine: Any, bundle: ResidentBundle) -> None:
    def sampled() -> Work:
        return work(bundle, samples=3, temperature=1.5, seed=5)

    async def choices(job: Work) -> dict[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        ends = []
        async for piece in engine.generate(job):
            found[piece.choice] += piece.token_ids
            ends += [piece.choice] if piece.finish_reason else []
        assert sorted(ends) == [0, 1, 2]  # every answer ends once
        return dict(found)

    first = await choices(sampled())
    assert len({tuple(tokens) for tokens in first.values()}) > 1
    assert await choices(sampled()) == first  # a seed repeats all of them


async def test_the_prompt_s_log_probabilities_are_those_of_transformers(
    engine: Any, bundle: ResidentBundle, tiny_model: Path
) -> None:
    pieces = [piece async for piece in engine.generate(work(bundle, prompt_logprobs=True))]
    with torch.inference_mode(), hooked(load(tiny_model), bundle) as model:
        expected = model(torch.tensor([PROMPT])).logits[0, :-1].log_softmax(-1)
    wanted = expected[range(len(PROMPT) - 1), list(PROMPT[1:])]
    assert pieces[0].prompt_logprobs == pytest.approx(wanted.tolist(), abs=1e-4)
    assert all(piece.prompt_logprobs == () for piece in pieces[1:])


async def test_beams_are_the_likeliest_answers_of_the_bundle(engine: Any, bundle: ResidentBundle) -> None:
    job = work(bundle, max_tokens=5, beams=3, logprobs=True)
    pieces = [piece async for piece in engine.generate(job)]
    assert [piece.choice for piece in pieces] == [0, 1, 2]
    assert len({piece.token_ids for piece in pieces}) == 3
    means = [sum(piece.logprobs) / len(piece.logprobs) for piece in pieces]
    assert means == sorted(means, reverse=True)
    # What they are said to be worth is what the bundle's own scores say.
    scores = await engine.score(work(bundle), [piece.token_ids for piece in pieces])
    assert [sum(piece.logprobs) for piece in pieces] == pytest.approx(list(scores), abs=1e-4)
    greedy = [piece async for piece in engine.generate(work(bundle, max_tokens=5, logprobs=True))]
    logprobs = [value for piece in greedy for value in piece.logprobs]
    assert means[0] >= sum(logprobs) / len(logprobs) - 1e-4
    assert pieces[0].text == engine._prompts.decode(pieces[0].token_ids)
    other = [piece async for piece in engine.generate(work(None, max_tokens=5, beams=3, logprobs=False))]
    assert [piece.token_ids for piece in other] != [piece.token_ids for piece in pieces]
    assert all(piece.logprobs == () for piece in other)
