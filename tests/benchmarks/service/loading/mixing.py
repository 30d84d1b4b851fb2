"""The client of the soak: python -m loading.mixing, its orders as JSON on the standard input.

Requests come as a Poisson process, each of one of these kinds, by its weight:

    stream     a streamed answer, read to its end
    unary      an answer in one message
    classify   one of two labels
    cancel     a stream of which the caller has enough after a few pieces
    stranger   a token that nobody has
    forbidden  a bundle that is not the tenant's
    torn       a stream whose connection breaks in the middle

Each has one end that is expected of it, the last three an error of a certain kind. Everything else is unexpected,
counted, and told. At its end, the client prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from eul_serve.client import AsyncClient
from eul_serve.errors import EulError, IdentityError, RefusedError
from loading.arrivals import arrivals
from loading.asking import ONCE
from loading.plan import draw_prompt
from loading.relay import Relay

WEIGHTS = {"stream": 50, "unary": 15, "classify": 10, "cancel": 10, "stranger": 5, "forbidden": 5, "torn": 5}
LABELS = (" yes", " no")
PROMPT = 16
SHOWN = 5


class Mixture:
    """Sends requests of every kind, and keeps what was not expected."""

    def __init__(self, address: str, clients: dict[str, AsyncClient], tokens: dict[str, str], answer: int) -> None:
        """Take what requests are made of.

        Args:
            address: The server's address.
            clients: A client for each tenant.
            tokens: Each tenant's token.
            answer: Most tokens of an answer.
        """
        self._address, self._clients, self._tokens, self._answer = address, clients, tokens, answer
        self.asked: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.texts: list[str] = []

    async def send(self, kind: str, tenant: str, number: int) -> None:
        """Send one request and judge its end."""
        way: Callable[[str, Sequence[int], random.Random], Awaitable[str]] = getattr(self, f"_{kind}")
        self.asked[kind] += 1
        try:
            wrong = await way(tenant, draw_prompt(1, number, PROMPT), random.Random(number))
        except Exception as error:  # whatever it is, the soak goes on, and it is counted
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            self.unexpected[kind] += 1
            self.texts.append(f"{kind}: {wrong}"[:300])

    async def _stream(self, tenant: str, prompt: Sequence[int], chance: random.Random) -> str:
        parts = [part async for part in self._clients[tenant].generate_stream(prompt, max_tokens=self._answer)]
        return "" if parts[-1].finish_reason in ("stop", "length") else f"ended by {parts[-1].finish_reason}"

    async def _unary(self, tenant: str, prompt: Sequence[int], chance: random.Random) -> str:
        answer = await self._clients[tenant].generate(prompt, max_tokens=self._answer)
        return "" if answer.finish_reason in ("stop", "length") else f"ended by {answer.finish_reason}"

    async def _classify(self, tenant: str, prompt: Sequence[int], chance: random.Random) -> str:
        found = await self._clients[tenant].classify(prompt, LABELS)
        return "" if found.label in LABELS else f"chose {found.label!r}"

    async def _cancel(self, tenant: str, prompt: Sequence[int], chance: random.Random) -> str:
        enough = chance.randrange(1, 5)
        async with aclosing(self._clients[tenant].generate_stream(prompt, max_tokens=self._answer)) as parts:
            async for _ in parts:
                enough -= 1
                if not enough:
                    break
        return ""

    async def _stranger(self, tenant: str, prompt: Sequence[int], chance: random.Random) -> str:
        async with AsyncClient(self._address, f"stranger-{chance.randrange(10**9)}", settings=ONCE) as client:
            return await _refused(client.generate(prompt, max_tokens=1), IdentityError)

    async def _forbidden(self, tenant: str, prompt: Sequence[int], chance: random.Random) -> str:
        return await _refused(self._clients[tenant].generate(prompt, adapter="another", max_tokens=1), RefusedError)

    async def _torn(self, tenant: str, prompt: Sequence[int], chance: random.Random) -> str:
        async with (
            Relay(self._address) as relay,
            AsyncClient(relay.address, self._tokens[tenant], settings=ONCE) as client,
            aclosing(client.generate_stream(prompt, max_tokens=self._answer)) as parts,
        ):
            await anext(parts)
            relay.tear()
            # A short answer may have come whole before the connection broke.
            return await _refused(_read(parts), EulError, or_answered=True)


async def _read(parts: Any) -> None:
    async for _ in parts:
        pass


async def _refused(call: Awaitable[object], expected: type[EulError], *, or_answered: bool = False) -> str:
    try:
        await call
    except expected:
        return ""
    return "" if or_answered else f"was answered; expected {expected.__name__}"


async def main(orders: dict[str, Any]) -> dict[str, Any]:
    """Send requests for some seconds, wait for their ends, and return what came of them."""
    async with AsyncExitStack() as stack:
        clients = {
            tenant: await stack.enter_async_context(AsyncClient(orders["address"], token, settings=ONCE))
            for tenant, token in orders["tokens"].items()
        }
        mixture = Mixture(orders["address"], clients, orders["tokens"], orders["answer"])
        chance, begin, tasks = random.Random(orders["seed"]), time.monotonic(), set[asyncio.Task[None]]()
        for arrival in arrivals(list(clients), orders["rate"], orders["seed"]):
            if arrival.at > orders["seconds"]:
                break
            await asyncio.sleep(begin + arrival.at - time.monotonic())
            (kind,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
            task = asyncio.create_task(mixture.send(kind, arrival.tenant, arrival.number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    kinds = {kind: {"asked": mixture.asked[kind], "unexpected": mixture.unexpected[kind]} for kind in WEIGHTS}
    return {"kinds": kinds, "texts": mixture.texts[:SHOWN]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(sys.stdin.readline())))) + "\n")
