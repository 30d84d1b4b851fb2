"""What every revision answers, learned before any load, from a server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from eul_serve.client import AsyncClient
from eul_serve.errors import EngineError
from loading.asking import ONCE
from loading.timeline import Reference

AT_ONCE = 4
"""Revisions that are asked at the same time, so that their answers run in one batch, as under load."""


async def learn(
    address: str, tokens: Mapping[str, str], wanted: Mapping[str, tuple[str, str]], prompt: tuple[int, ...], answer: int
) -> dict[str, Reference]:
    """Return the greedy answer of every revision that gives the same one twice.

    One whose two likeliest tokens are so near to each other that the other requests of a batch decide between them is
    left out, as its answers would prove nothing.

    Args:
        address: A server's address.
        tokens: The tenants' tokens.
        wanted: By revision: a tenant that may use it, and the bundle's name.
        prompt: The prompt.
        answer: Tokens of the answer.

    Returns:
        The answers by revision, in the order of `wanted`.

    Raises:
        EngineError: A revision was asked for and another one answered.
    """
    gate, found = asyncio.Semaphore(AT_ONCE), dict[str, Reference]()

    async def one(client: AsyncClient, revision: str, name: str) -> None:
        async with gate:
            told = [await client.generate(prompt, adapter=f"{name}@{revision}", max_tokens=answer) for _ in range(2)]
        if {each.revision for each in told} != {revision}:
            raise EngineError(f"{name}@{revision} was asked for, and {told[0].revision} answered")
        first, second = (Reference(token_ids=each.token_ids, text=each.text) for each in told)
        if first == second:
            found[revision] = first

    clients = {tenant: AsyncClient(address, token, settings=ONCE) for tenant, token in tokens.items()}
    try:
        await asyncio.gather(*(one(clients[tenant], revision, name) for revision, (tenant, name) in wanted.items()))
    finally:
        for client in clients.values():
            await client.close()
    return {revision: found[revision] for revision in wanted if revision in found}
