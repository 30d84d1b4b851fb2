"""Connections that are no requests: opened and dropped, cut in the middle, or full of noise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eul_serve.address import Address
from eul_serve.rpc.transport import TransportSettings
from tests.eul_serve.service_home import Service, ServiceHome, opened_files, token_of

LISTEN = TransportSettings(listen=Address("127.0.0.1", 0))
KEY = f"authorization: Bearer {token_of('acme')}\r\n"
CUT = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + KEY.encode() + b"content-length: 100\r\n\r\n{",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + KEY.encode() + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + KEY.encode(),
    b"GET ",
    b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
    bytes(range(64)),
)


async def said(service: Service, data: bytes) -> bytes:
    """Send bytes, and return what came back until the connection was closed or nothing more came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.server.ports.openai)
    writer.write(data)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_ten_thousand_connections_leave_nothing(home: ServiceHome) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme={"default": "poems", "bundles": ["poems"]})
    async with home.serve(openai=LISTEN) as service:
        await service.watching()  # which opens files of its own
        before = len(opened_files()), len(asyncio.all_tasks())

        async def one(number: int) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", service.server.ports.openai)
            if number % 10 == 0:
                writer.write(CUT[number // 10 % len(CUT)])
            writer.close()

        for begin in range(0, 10_000, 100):
            await asyncio.gather(*(one(begin + number) for number in range(100)), return_exceptions=True)
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {token_of('acme')}"}) as client:
            url = f"http://127.0.0.1:{service.server.ports.openai}/v1"
            body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
            assert (await client.post(f"{url}/chat/completions", json=body)).is_success
        await service.until(lambda: service.sample("eul_in_flight_requests") == 0, "the end of all requests")
        await service.until(lambda: len(opened_files()) <= before[0] + 2, "the end of all connections")
        await service.until(lambda: len(asyncio.all_tasks()) <= before[1] + 2, "the end of all tasks")


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.write_policy(acme={})
    async with home.serve(openai=LISTEN) as running:
        yield running


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.binary(max_size=200)
    | st.builds(lambda head, tail: head + tail, st.sampled_from(CUT), st.binary(max_size=40))
    | st.builds(
        lambda path, name, value: f"GET {path} HTTP/1.1\r\n{name}: {value}\r\n\r\n".encode(),
        st.text("/v1models.%2e\x00 ", max_size=20), st.text(max_size=8), st.text(max_size=8),
    )
)  # fmt: skip
async def test_noise_gets_a_refusal_or_nothing(service: Service, data: bytes) -> None:
    answer = await said(service, data)
    assert answer == b"" or answer.split()[1] in (b"400", b"401", b"404")
    assert service.engine.works == []
