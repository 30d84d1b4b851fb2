"""Bytes from outside, at every place where the service reads some: one line and a code, never a bug or a hang."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.address import Address
from eul_serve.client.failure import rpc_errors
from eul_serve.errors import EulError, IdentityError, InputError
from eul_serve.identity import Credentials, KeyRing, identify
from eul_serve.identity.keys import parse_keys
from eul_serve.policy import JwtRules, Policy, load_policy
from eul_serve.policy.policy import UNKNOWN_CALLER
from eul_serve.rpc import convert
from eul_serve.rpc.auth import bearer_token
from eul_serve.rpc.calls import request_id_of
from eul_serve.rpc.details import DETAILS_KEY
from eul_serve.rpc.transport import TransportSettings
from eul_serve.rpc.validate import check_prompt, check_sampling
from eul_serve.v1 import admin_service_pb2, bundle_service_pb2, generation_service_pb2
from tests.eul_serve.service_home import ADMIN_TOKEN, Service, ServiceHome, token_of

RULES = JwtRules(issuer="i", audience="a", algorithms=("RS256",), keys="keys.json")
METHODS: dict[str, tuple[Any, str]] = {
    "GenerationService/Generate": (generation_service_pb2.GenerateRequest, "data"),
    "GenerationService/GenerateStream": (generation_service_pb2.GenerateStreamRequest, "data"),
    "GenerationService/Classify": (generation_service_pb2.ClassifyRequest, "data"),
    "BundleService/GetBundle": (bundle_service_pb2.GetBundleRequest, "data"),
    "AdminService/Activate": (admin_service_pb2.ActivateRequest, "admin"),
    "AdminService/Pin": (admin_service_pb2.PinRequest, "admin"),
    "AdminService/Drain": (admin_service_pb2.DrainRequest, "admin"),
}
METADATA = st.lists(
    st.tuples(
        st.sampled_from(["authorization", "x-request-id", "x", "authorization-bin"]),
        st.one_of(st.text(max_size=60), st.binary(max_size=60)),
    ),
    max_size=5,
)


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.appoint()
    home.write_policy(acme={"default": "poems", "bundles": ["poems"]})
    admin = TransportSettings(listen=Address("127.0.0.1", 0))
    async with home.serve(admin=admin) as running:
        yield running


def one_line(error: Exception) -> None:
    """A refusal is one line."""
    assert "\n" not in str(error)


def spoiled(message: Message, generator: random.Random) -> bytes:
    """Bytes near to a message's: flipped, cut, doubled, or none of it."""
    data = bytearray(message.SerializeToString() or b"\x0a\x00")
    for _ in range(generator.randrange(1, 6)):
        kind, place = generator.randrange(4), generator.randrange(len(data) or 1)
        if kind == 0 and data:
            data[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del data[place : place + generator.randrange(4)]
        elif kind == 2:
            data[place:place] = data[:place][-8:]
        else:
            data[place:place] = generator.randbytes(generator.randrange(8))
    return bytes(data)


def some_message(kind: Any, generator: random.Random) -> Message:
    """A message with values in most fields."""
    found: Message = kind()
    for field in kind.DESCRIPTOR.fields:
        if field.name == "sampling":
            found.sampling.max_tokens = generator.choice([0, 1, 2, 1 << 31])  # type: ignore[attr-defined]
            found.sampling.temperature = generator.choice([0.0, -1.0, float("nan"), float("inf")])  # type: ignore[attr-defined]
            found.sampling.stop.append("x" * generator.randrange(200))  # type: ignore[attr-defined]
        elif field.name == "prompt":
            found.prompt.text = generator.choice(["", "hi", "\x00", "\ud7ff" * 40])  # type: ignore[attr-defined]
        elif field.name == "labels":
            found.labels.extend([" a"] * generator.randrange(4))  # type: ignore[attr-defined]
        elif field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(found, field.name, generator.choice(["", "poems", "../x", "\x00", "a" * 5000, "poems@sha256:0"]))
    return found


@pytest.mark.parametrize("method", METHODS)
async def test_spoiled_requests_get_a_code_and_never_a_bug(service: Service, method: str) -> None:
    kind, port = METHODS[method]
    address, token = (service.admin_address, ADMIN_TOKEN) if port == "admin" else (service.address, token_of("acme"))
    generator, codes, lines = random.Random(method), set(), [""]
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_stream(f"/eul_serve.v1.{method}")
        for _ in range(150):
            data = spoiled(some_message(kind, generator), generator)
            try:
                async for _ in call(data, metadata=[("authorization", f"Bearer {token}")], timeout=20):
                    pass
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())
                lines.append(error.details() or "")
            if method == "AdminService/Drain":  # which may have been understood
                break
    assert not codes & {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
    assert not any("\n" in line or "Error" in line for line in lines)
    assert (await service.ask("acme", max_tokens=1)).revision  # and the server goes on


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_bytes_that_are_a_message_are_converted_or_refused(data: bytes) -> None:
    for kind in (generation_service_pb2.GenerateRequest, generation_service_pb2.GenerateStreamRequest):
        try:
            message = kind.FromString(data)
        except DecodeError:
            continue
        try:
            check_prompt(convert.prompt_of(message.prompt), 64)
            check_sampling(convert.sampling_of(message.sampling))
        except InputError as error:
            one_line(error)


@given(METADATA)
def test_metadata_is_read_or_refused(metadata: list[tuple[str, str | bytes]]) -> None:
    try:
        token = bearer_token(metadata)
    except IdentityError:
        assert sum(key == "authorization" for key, _ in metadata) > 1
    else:
        assert token is None or (token and not token.isspace())
    assert 1 <= len(request_id_of(metadata)) <= 64


@given(st.one_of(st.text(max_size=200), st.lists(st.text(max_size=40), min_size=3, max_size=3).map(".".join)))
def test_a_token_of_noise_is_nobody_s(token: str) -> None:
    policy = Policy(tenants={}, tokens={}, jwt=RULES, epoch="e")
    with pytest.raises(IdentityError) as error:
        identify(Credentials(token=token), policy, KeyRing())
    assert not token.strip() or str(error.value) == UNKNOWN_CALLER


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["keys", "kty", "n", "e", "kid"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_keys_of_noise_are_none(data: object) -> None:
    with pytest.raises(InputError):
        parse_keys(data, RULES)


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_a_policy_of_noise_is_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.toml"
        path.write_bytes(data)
        try:
            assert load_policy(path).tenants == {}
        except InputError as error:
            one_line(error)


VALUES = st.one_of(st.integers(), st.text(max_size=20), st.booleans(), st.lists(st.text(max_size=10), max_size=3))
KEYS = (
    "base", "bundles", "default", "rights", "token_sha256", "certificates", "priority", "requests_per_minute", "colour",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_a_policy_of_wrong_values_is_one_line(tenant: dict[str, Any]) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in tenant.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.toml"
        path.write_text("\n".join(["[tenants.acme]", *lines]), encoding="utf-8", errors="surrogatepass")
        try:
            found = load_policy(path)
        except InputError as error:
            one_line(error)
        else:
            assert set(found.tenants) == {"acme"}


class _Failed(grpc.RpcError):
    """A call whose server sent noise in the place of details."""

    def __init__(self, details: bytes) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "no"

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ((DETAILS_KEY, self._details),)


@given(st.binary(max_size=200))
def test_details_of_noise_leave_the_code(details: bytes) -> None:
    with pytest.raises(EulError, match="no"), rpc_errors("server"):
        raise _Failed(details)


async def test_ten_thousand_connections_leave_nothing(service: Service) -> None:
    """Opened and dropped in every way, a tenth of them in the middle of a frame."""
    host, port = service.address.split(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    async def one(number: int) -> None:
        _, writer = await asyncio.open_connection(host, int(port))
        if number % 10 == 0:
            writer.write((preface, preface[:7], b"GET / HTTP/1.1\r\n\r\n", bytes(range(64)))[number // 10 % 4])
        writer.close()

    for begin in range(0, 10_000, 100):
        await asyncio.gather(*(one(begin + number) for number in range(100)), return_exceptions=True)
    assert (await service.ask("acme", max_tokens=1)).revision
    assert service.sample("eul_in_flight_requests") == 0
