"""Spans: one trace from the caller's own span over the client and the server to the engine, and no secret in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import eul_serve.trace
from eul_serve.client import AsyncClient
from eul_serve.errors import RefusedError
from eul_serve.serve.tracing import set_up_traces
from tests.eul_serve.service_home import Service, ServiceHome, token_of

SECRET = "Zaphod Beeblebrox"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What a collector would get; a provider of its own, as the process has one for good."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(eul_serve.trace, "TRACER", provider.get_tracer("eul_serve"))
    yield exporter
    provider.shutdown()


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme={"default": "poems", "bundles": ["poems"]})
    async with home.serve() as running:
        yield running


async def spans(exporter: InMemorySpanExporter, count: int) -> dict[str, ReadableSpan]:
    """The finished spans by name, once there are so many."""
    for _ in range(200):
        found = exporter.get_finished_spans()
        if len(found) >= count:
            return {span.name: span for span in found}
        await asyncio.sleep(0.01)
    raise AssertionError(f"{[span.name for span in found]}: expected {count}")


async def test_one_trace_from_the_caller_to_the_engine(service: Service, exporter: InMemorySpanExporter) -> None:
    async with AsyncClient(service.address, token_of("acme")) as client:
        with eul_serve.trace.TRACER.start_as_current_span("application"):
            answer = await client.generate(SECRET, max_tokens=3)
            assert trace.get_current_span().name == "application"  # type: ignore[attr-defined]  # ours is not left behind
    found = await spans(exporter, 6)
    assert set(found) == {"application", "eul/Generate", "Generate", "find", "queue", "engine"}
    assert len({span.context.trace_id for span in found.values()}) == 1

    def parent(name: str) -> int | None:
        above = found[name].parent
        return above and above.span_id

    assert parent("eul/Generate") == found["application"].context.span_id
    assert parent("Generate") == found["eul/Generate"].context.span_id
    assert {parent(name) for name in ("find", "queue", "engine")} == {found["Generate"].context.span_id}
    told = dict(found["Generate"].attributes or {})
    assert (told["eul.revision"], told["eul.completion_tokens"], told["eul.code"]) == (answer.revision, 3, "OK")
    text = " ".join(span.to_json() for span in found.values())
    for secret in (SECRET, token_of("acme"), "acme", answer.text):
        assert secret not in text


async def test_a_stream_and_a_refusal(service: Service, exporter: InMemorySpanExporter) -> None:
    async with AsyncClient(service.address, token_of("acme")) as client:
        async for _ in client.generate_stream(SECRET, max_tokens=3):
            assert not trace.get_current_span().get_span_context().is_valid  # nothing is left to who reads
        assert (await spans(exporter, 5))["GenerateStream"].attributes["eul.completion_tokens"] == 3  # type: ignore[index]
        exporter.clear()
        with pytest.raises(RefusedError):
            await client.generate(SECRET, adapter="novels")
    found = await spans(exporter, 2)
    assert set(found) == {"eul/Generate", "Generate"}
    assert found["Generate"].attributes["eul.decision"] == "refused_by_policy"  # type: ignore[index]
    assert not found["eul/Generate"].status.is_ok
    assert SECRET not in " ".join(span.to_json() for span in found.values())


def test_without_a_collector_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert not set_up_traces()
