"""What a program reads in a refusal, over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from eul_serve.errors import (
    BundleFormatError,
    BundleMismatchError,
    BusyError,
    CapacityError,
    EngineError,
    EulError,
    IdentityError,
    InputError,
    NotFoundError,
    RefusedError,
)
from eul_serve.policy import REFUSAL
from eul_serve.rpc.details import DETAILS_KEY, PUSHBACK_KEY, reason_of, trailers
from eul_serve.rpc.status import code_of
from eul_serve.v1 import generation_service_pb2 as pb
from eul_serve.v1 import generation_service_pb2_grpc as services
from tests.eul_serve.service_home import Service, ServiceHome, token_of


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(
        acme={"default": "poems", "bundles": ["poems"]},
        small={"default": "poems", "bundles": ["poems"], "requests_per_minute": 2, "tokens_per_minute": 100},
        tiny={"default": "poems", "bundles": ["poems"], "tokens_per_minute": 60},
    )
    async with home.serve() as running:
        yield running


def refused(service: Service, tenant: str | None, **fields: Any) -> tuple[Status, dict[str, str | bytes]]:
    """Make a call that must be refused, as a client of another language would."""
    request = pb.GenerateRequest(prompt=pb.Prompt(text=fields.pop("text", "hi")), **fields)
    metadata = [("authorization", f"Bearer {token_of(tenant)}")] if tenant else []
    with grpc.insecure_channel(service.address) as channel:
        stub = services.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as error:
            stub.Generate(request, metadata=[*metadata, ("x-request-id", "r-1")], timeout=10)
    call: Any = error.value
    trailing = dict(call.trailing_metadata())
    status = Status.FromString(trailing[DETAILS_KEY])
    assert (status.code, status.message) == (call.code().value[0], call.details())
    return status, trailing


def unpacked(status: Status, kind: type[Message]) -> Any:
    found = [kind.FromString(one.value) for one in status.details if one.Is(kind.DESCRIPTOR)]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("tenant", "fields", "reason"),
    [
        (None, {}, "UNKNOWN_CALLER"),
        ("nobody", {}, "UNKNOWN_CALLER"),
        ("acme", {"adapter": "novels"}, "REFUSED_BY_POLICY"),
        ("acme", {"adapter": "base"}, "REFUSED_BY_POLICY"),
        ("acme", {"text": ""}, "INVALID_REQUEST"),
    ],
)
async def test_every_refusal_has_a_reason_and_the_request_id(
    service: Service, tenant: str | None, fields: dict[str, Any], reason: str
) -> None:
    status, trailing = await asyncio.to_thread(refused, service, tenant, **fields)
    info = unpacked(status, ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == (reason, "eul-serve", {})
    assert unpacked(status, RequestInfo).request_id == trailing["x-request-id"] == "r-1"
    assert unpacked(status, RetryInfo) is None
    assert PUSHBACK_KEY not in trailing


async def test_a_bad_field_is_named(service: Service) -> None:
    sampling = pb.Sampling(top_p=0.0)
    status, _ = await asyncio.to_thread(refused, service, "acme", sampling=sampling)
    violation = unpacked(status, BadRequest).field_violations[0]
    assert violation.field == "sampling.top_p"
    assert violation.description == "expected above 0 to 1, found 0"


async def test_unknown_and_forbidden_read_the_same_to_the_last_byte(service: Service) -> None:
    """A detail must not tell what the line for people hides."""
    seen = [await asyncio.to_thread(refused, service, "acme", adapter=name) for name in ("novels", "nothing", "base")]
    assert len({status.SerializeToString() for status, _ in seen}) == 1
    assert seen[0][0].message == REFUSAL


async def test_a_used_up_quota_says_which_and_when(service: Service) -> None:
    for _ in range(2):
        await service.ask("small", max_tokens=2)
    status, trailing = await asyncio.to_thread(refused, service, "small")
    assert unpacked(status, QuotaFailure).violations[0].subject == "requests_per_minute"
    delay = unpacked(status, RetryInfo).retry_delay.ToMilliseconds()
    assert 25_000 < delay <= 30_000  # two a minute: one every thirty seconds
    assert trailing[PUSHBACK_KEY] == "-1"  # too long to wait for without being asked
    with pytest.raises(BusyError, match="2 requests per minute") as error:
        await service.ask("small")
    assert error.value.limit == "requests_per_minute"
    assert error.value.retry_seconds == pytest.approx(delay / 1000, abs=2)


async def test_more_than_a_minute_of_tokens_is_refused_for_good(service: Service) -> None:
    status, trailing = await asyncio.to_thread(
        refused, service, "tiny", text="x" * 50, sampling=pb.Sampling(max_tokens=11)
    )
    assert "this request alone may take 61" in status.message
    assert unpacked(status, RetryInfo) is None
    assert trailing[PUSHBACK_KEY] == "-1"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("x"), "INVALID_REQUEST"),
        (BundleFormatError("x"), "INVALID_BUNDLE"),
        (BundleMismatchError("x"), "OTHER_BASE_MODEL"),
        (NotFoundError("x"), "NOT_FOUND"),
        (IdentityError("x"), "UNKNOWN_CALLER"),
        (RefusedError("x"), "REFUSED_BY_POLICY"),
        (BusyError("x"), "BUSY"),
        (CapacityError("x"), "NO_ROOM"),
        (EngineError("x"), "NOT_SERVED_NOW"),
        (TimeoutError(), "TOOK_TOO_LONG"),
        (EulError("x"), "INTERNAL"),
        (ValueError("secret"), "INTERNAL"),
    ],
)
def test_the_reasons_are_a_closed_set(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
    found = dict(trailers(error, "the line", "r-2"))
    status = Status.FromString(found[DETAILS_KEY])  # type: ignore[arg-type]
    assert status.code == code_of(error).value[0]
    assert b"secret" not in status.SerializeToString()
    assert (PUSHBACK_KEY in found) == isinstance(error, CapacityError)
    if isinstance(error, CapacityError):  # wait a second by yourself, or do not try again
        assert found[PUSHBACK_KEY] == ("1000" if isinstance(error, BusyError) else "-1")
