"""The three ways to ask for the same answer: our client over gRPC, the OpenAI API over HTTP, the engine in process."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

from eul_serve.client import AsyncClient, Retries, Settings
from eul_serve.errors import EngineError
from loading.driving import Heard, Send
from loading.plan import Plan

ONCE = Settings(retries=Retries(attempts=1), timeout_seconds=120.0)
"""A request that fails is asked once, so that the failure is seen and counted."""
BIAS = -100.0
"""Added to a token that may not be chosen; the lowest that both services take."""


@asynccontextmanager
async def by_grpc(plan: Plan) -> AsyncIterator[Send]:
    """Ask our service, connected before the first request. The tenants' clients share a connection, as gRPC does."""
    bias = dict.fromkeys(plan.never, BIAS)
    async with AsyncExitStack() as stack:
        clients = {
            tenant: await stack.enter_async_context(AsyncClient(plan.address, token, settings=ONCE))
            for tenant, token in plan.callers.items()
        }
        for client in clients.values():
            await client.health("")

        async def send(tenant: str, prompt: tuple[int, ...], answer: int) -> AsyncGenerator[Heard, None]:
            options: dict[str, Any] = {"logit_bias": bias} if bias else {}
            parts = clients[tenant].generate_stream(prompt, max_tokens=answer, **options)
            async with aclosing(parts):
                async for part in parts:
                    yield Heard(
                        fresh=bool(part.token_ids),
                        made=part.usage.completion_tokens,
                        revision=part.revision,
                        token_ids=part.token_ids,
                        text=part.text,
                    )

        yield send


@asynccontextmanager
async def by_http(plan: Plan) -> AsyncIterator[Send]:
    """Ask an OpenAI server for streamed completions; reads of a chunk no more than the clock needs."""
    import aiohttp  # comes with vLLM; the clients of our service do without

    timeout, connector = aiohttp.ClientTimeout(total=120), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://{plan.address}", timeout=timeout, connector=connector) as session:

        async def send(tenant: str, prompt: tuple[int, ...], answer: int) -> AsyncGenerator[Heard, None]:
            body = {
                "model": plan.callers[tenant], "prompt": prompt, "max_tokens": answer, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}, "logit_bias": {str(token): BIAS for token in plan.never},
            }  # fmt: skip
            async with session.post("/v1/completions", json=body) as response:
                if response.status != 200:
                    raise EngineError(f"HTTP {response.status}: {await response.text()}")
                async for line in response.content:
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    if data:
                        yield _chunk(data)
            raise EngineError("the stream broke off")

        async with session.get("/health"):
            pass
        yield send


def _chunk(data: bytes) -> Heard:
    if data.startswith(b'{"error"'):
        raise EngineError(data.decode()[:300])
    if b'"choices":[]' in data:
        return Heard(fresh=False, made=json.loads(data)["usage"]["completion_tokens"])
    return Heard(fresh=True)


def in_process(engine: Any, bundles: Mapping[str, Any], never: tuple[int, ...]) -> Send:
    """Ask a running engine itself.

    Args:
        engine: An `eul_serve.engine.base.Engine`.
        bundles: The resident bundle of each tenant.
        never: Tokens that may not be chosen.

    Returns:
        The way to ask.
    """
    from eul_serve.engine.base import Sampling, Work

    bias = dict.fromkeys(never, BIAS)

    async def send(tenant: str, prompt: tuple[int, ...], answer: int) -> AsyncGenerator[Heard, None]:
        sampling = Sampling(max_tokens=answer, logit_bias=bias)
        work = Work(
            id=secrets.token_hex(8), token_ids=prompt, bundle=bundles[tenant], salt=f"in-process-{tenant}",
            sampling=sampling,
        )  # fmt: skip
        made = 0
        async with aclosing(engine.generate(work)) as pieces:
            async for piece in pieces:
                made += len(piece.token_ids)
                yield Heard(fresh=bool(piece.token_ids), made=made)

    return send
