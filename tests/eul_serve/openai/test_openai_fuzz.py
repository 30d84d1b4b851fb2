"""Whatever JSON comes in is a request or is refused in words."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eul_serve.engine.base import Sampling
from eul_serve.errors import InputError
from eul_serve.openai.fields import NEUTRAL, OWN
from eul_serve.openai.request import Asked, read_chat, read_completion
from eul_serve.rpc.rights import needed_rights
from eul_serve.rpc.validate import check_sampling

SERVED = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "n", "seed",
    "stop", "stream", "stream_options", "logprobs", "logit_bias", "allowed_token_ids", "response_format",
    "structured_outputs", "echo",
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BODIES = JSON | st.dictionaries(st.sampled_from((*SERVED, *NEUTRAL, *OWN, "tools")) | st.text(max_size=6), JSON)


def check_line(error: InputError) -> None:
    assert "\n" not in str(error)


def accepted(data: object) -> list[Asked]:
    found = []
    for read in (read_chat, read_completion):
        try:
            asked = read(data)
            check_sampling(asked.ask.sampling)
        except InputError as error:
            check_line(error)
        else:
            found.append(asked)
    return found


@given(BODIES)
def test_every_body_is_a_request_or_is_refused(data: object) -> None:
    for asked in accepted(data):
        sampling = asked.ask.sampling
        assert isinstance(asked.ask.adapter, str)
        assert type(sampling.max_tokens) is int
        assert needed_rights(sampling, echo=asked.ask.echo) <= {
            "allowed_tokens", "constrained", "echo", "logit_bias", "logprobs", "prompt_logprobs", "samples",
        }  # fmt: skip


@given(st.sampled_from(SERVED), JSON)
def test_one_odd_field_among_good_ones(name: str, value: Any) -> None:
    for good in ({"messages": [{"role": "user", "content": "hi"}]}, {"prompt": "hi"}):
        accepted({**good, name: value})


@given(st.text(max_size=8).filter(lambda name: name not in {*SERVED, *NEUTRAL, *OWN}), st.integers(1))
def test_a_field_that_nobody_knows_is_refused(name: str, value: int) -> None:
    assert accepted({"messages": [{"role": "user", "content": "hi"}], name: value}) == []
    assert accepted({"prompt": "hi", name: value}) == []


@given(st.dictionaries(st.sampled_from(("temperature", "top_p", "seed", "n", "top_k")), st.integers(0, 1)))
def test_good_values_come_through_unchanged(fields: dict[str, int]) -> None:
    text = json.dumps({"prompt": "hi", **fields})
    try:
        sampling = read_completion(json.loads(text)).ask.sampling
    except InputError as error:
        raise AssertionError(text) from error
    names = {"n": "samples"}
    for name, value in fields.items():
        assert getattr(sampling, names.get(name, name)) == value
    assert sampling.constraint == Sampling().constraint
