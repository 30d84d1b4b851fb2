"""Several answers, constraints and echoes over gRPC: each is a right, and reaches the engine as it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from eul_serve.engine.base import Constraint
from eul_serve.errors import InputError, RefusedError
from eul_serve.policy import RIGHTS
from tests.eul_serve.service_home import Service, ServiceHome

ASKED: dict[str, dict[str, Any]] = {
    "allowed_tokens": {"allowed_tokens": [1, 2]},
    "beams": {"beams": 2},
    "constrained": {"constraint": {"choice": ["yes", "no"]}},
    "echo": {"echo": True},
    "logit_bias": {"logit_bias": {7: 2.5}},
    "logprobs": {"logprobs": True},
    "prompt_logprobs": {"prompt_logprobs": True},
    "samples": {"samples": 3, "temperature": 1.0},
}
"""What asks for each right."""


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(
        trusted={"default": "poems", "bundles": ["poems"], "rights": sorted(RIGHTS)},
        plain={"default": "poems", "bundles": ["poems"]},
        **{right: {"default": "poems", "bundles": ["poems"], "rights": [right]} for right in ASKED},
    )
    async with home.serve() as running:
        yield running


@pytest.mark.parametrize("right", sorted(ASKED))
async def test_each_is_denied_until_granted_and_no_other_right_opens_it(service: Service, right: str) -> None:
    for tenant in ("plain", *(other for other in ASKED if other != right)):
        with pytest.raises(RefusedError, match=f"no right '{right}'"):
            await service.ask(tenant, "hey", max_tokens=2, **ASKED[right])
    assert service.engine.works == []  # nothing of it reached the engine
    await service.ask(right, "hey", max_tokens=2, **ASKED[right])  # and with the right it does
    assert len(service.engine.works) == 1


async def test_all_that_was_asked_for_reaches_the_engine(service: Service) -> None:
    await service.ask(
        "trusted", "hey", max_tokens=2, allowed_tokens=[1, 2], logit_bias={7: 2.5}, constraint={"regex": "a+"}
    )
    sampling = service.engine.works[-1].sampling
    assert (sampling.allowed_tokens, dict(sampling.logit_bias)) == ((1, 2), {7: 2.5})
    assert sampling.constraint == Constraint(kind="regex", texts=("a+",))
    for kind, value, texts in (
        ("choice", ["a", "b"], ("a", "b")),
        ("json_schema", '{"type": "object"}', ('{"type": "object"}',)),
        ("grammar", 'root ::= "a"', ('root ::= "a"',)),
    ):
        await service.ask("trusted", "hey", max_tokens=1, constraint={kind: value})
        assert service.engine.works[-1].sampling.constraint == Constraint(kind=kind, texts=texts)  # type: ignore[arg-type]


async def test_several_answers_have_one_revision_and_count_together(service: Service) -> None:
    answer = await service.ask("trusted", "hello", max_tokens=4, samples=3, temperature=1.0, logprobs=True)
    assert len(answer.others) == 2
    assert {one.text for one in answer.others} == {answer.text}  # the fake has one thing to say
    assert all(one.token_ids == (0, 1, 2, 3) and one.finish_reason == "length" for one in answer.others)
    assert all(one.logprobs == (-0.5,) * 4 for one in answer.others)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 12)


async def test_a_stream_of_several_answers_says_whose_piece_it_is(service: Service) -> None:
    with service.client("trusted") as client:
        parts = await asyncio.to_thread(
            lambda: list(client.generate_stream("hey", max_tokens=2, samples=2, temperature=1.0))
        )
    assert [part.choice for part in parts] == [0, 0, 1, 0, 1]
    assert [part.finish_reason for part in parts[-2:]] == ["length", "length"]
    assert parts[-1].usage.completion_tokens == 4


async def test_the_prompt_comes_back_where_asked_for(service: Service) -> None:
    answer = await service.ask("trusted", "hey", max_tokens=1, echo=True, prompt_logprobs=True)
    assert answer.prompt_token_ids == tuple(b"hey")
    assert answer.prompt_logprobs == (-1.0, -1.0)  # nothing stands before the first token
    with service.client("trusted") as client:
        parts = await asyncio.to_thread(
            lambda: list(client.generate_stream("hey", max_tokens=2, echo=True, prompt_logprobs=True))
        )
    assert [part.prompt_token_ids for part in parts] == [tuple(b"hey"), (), ()]
    assert [part.prompt_logprobs for part in parts] == [(), (-1.0, -1.0), ()]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"samples": 0}, "sampling.samples: expected 1 to 8"),
        ({"samples": 9, "temperature": 1.0}, "sampling.samples: expected 1 to 8"),
        ({"samples": 2}, "several greedy answers are one"),
        ({"beams": 1}, "sampling.beams: expected 2 to 8"),
        ({"beams": 9}, "sampling.beams: expected 2 to 8"),
        ({"beams": 2, "temperature": 0.5}, "sampling.beams: goes without sampling.temperature"),
        ({"beams": 2, "stop": ["x"]}, "sampling.beams: goes without sampling.stop"),
        ({"logit_bias": {1: 101.0}}, "sampling.logit_bias: expected -100 to 100"),
        ({"logit_bias": {1: float("nan")}}, "sampling.logit_bias: expected -100 to 100"),
        ({"logit_bias": dict.fromkeys(range(257), 1.0)}, "sampling.logit_bias: expected 0 to 256"),
        ({"allowed_tokens": [1] * 4097}, "sampling.allowed_tokens: expected 0 to 4096"),
        ({"constraint": {}}, "sampling.constraint: none is set"),
        ({"constraint": {"choice": []}}, "sampling.constraint.choice: expected 1 to 64"),
        ({"constraint": {"choice": [""]}}, "sampling.constraint.choice: expected 1 to 256 characters"),
        ({"constraint": {"regex": ""}}, "sampling.constraint.regex: expected 1 to 16384 characters"),
        ({"constraint": {"regex": "x" * 16_385}}, "expected 1 to 16384 characters, found 16385"),
        ({"constraint": {"colour": "red"}}, "sampling.constraint: .*give one of choice"),
    ],
)
async def test_what_is_out_of_range_gets_one_line(service: Service, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        await service.ask("trusted", "hey", **options)


def test_every_right_of_a_policy_can_be_asked_for() -> None:
    assert set(ASKED) == set(RIGHTS)


async def test_beams_are_answers_in_order(service: Service) -> None:
    answer = await service.ask("trusted", "hey", max_tokens=2, beams=3)
    assert service.engine.works[-1].sampling.beams == 3
    assert len(answer.others) == 2
    assert answer.usage.completion_tokens == 6


@pytest.mark.parametrize("name", sorted({"samples", "logit_bias", "allowed_tokens", "constraint", "prompt_logprobs"}))
async def test_beams_go_without_what_they_can_not_do(service: Service, name: str) -> None:
    (other,) = [asked for asked in ASKED.values() if name in asked]
    with pytest.raises(InputError, match=r"sampling\.beams: goes without sampling"):
        await service.ask("trusted", "hey", max_tokens=2, beams=2, **other)
