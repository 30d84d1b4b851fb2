"""Sends a plan's requests when they are due, whoever answers them, and tells what came of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from loading.outcome import PROBE, Outcome
from loading.plan import Plan

LEAD_SECONDS = 0.05
"""Before the first request, so that it is not late because the driver has just begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one message of an answer said, however it came."""

    fresh: bool
    """Whether it brought tokens."""
    made: int = 0
    """Tokens of the answer so far, where it said that."""
    revision: str = ""
    """The revision, where it named one."""
    token_ids: tuple[int, ...] = ()
    """New tokens, where it had them."""
    text: str = ""
    """New text."""


Send = Callable[[str, tuple[int, ...], int], AsyncGenerator[Heard, None]]
"""Asks for a tenant's answer to a prompt, of so many tokens at most."""
Tell = Callable[[Outcome], None]


async def drive(plan: Plan, send: Send, tell: Tell, stop: asyncio.Event) -> None:
    """Send a plan's requests at their times, and return when all are answered.

    Args:
        plan: The plan.
        send: Asks for one answer.
        tell: Told of every outcome as it is known.
        stop: Set when no further request is to be sent.
    """
    begin, tasks = time.monotonic() + LEAD_SECONDS, set[asyncio.Task[None]]()

    async def one(number: int, tenant: str, intended: float) -> None:
        tell(await ask(send, number, tenant, plan.prompt_of(number), plan.answer, intended))

    probing = asyncio.create_task(_probe(plan, send, tell, stop)) if plan.probe else None
    for arrival in plan.arrivals():
        await asyncio.sleep(begin + arrival.at - time.monotonic())
        if stop.is_set():
            break
        task = asyncio.create_task(one(arrival.number, arrival.tenant, begin + arrival.at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    if probing is not None:
        stop.set()
        await probing


async def _probe(plan: Plan, send: Send, tell: Tell, stop: asyncio.Event) -> None:
    """Ask for one token again and again, one request after the other."""
    while not stop.is_set():
        tell(await ask(send, PROBE, plan.probe, plan.prompt_of(0), 1, time.monotonic()))
        await asyncio.sleep(plan.probe_seconds)


async def ask(send: Send, number: int, tenant: str, prompt: tuple[int, ...], answer: int, intended: float) -> Outcome:
    """Send one request and return what came of it; an error is part of that, and never lost.

    Args:
        send: Asks for one answer.
        number: The request's number.
        tenant: Whose it is.
        prompt: Its prompt.
        answer: Most tokens of the answer.
        intended: Monotonic seconds when it was to be sent.

    Returns:
        The outcome.
    """
    sent, admitted, error = time.monotonic(), 0.0, ""
    times: list[float] = []
    heard: list[Heard] = []
    try:
        async with aclosing(send(tenant, prompt, answer)) as messages:
            async for message in messages:
                now = time.monotonic()
                admitted = admitted or now
                heard.append(message)
                if message.fresh:
                    times.append(now)
    except Exception as failure:  # whatever it is, the load goes on, and it is counted
        error = f"{type(failure).__name__}: {failure}"[:300]
    if not error and not times:
        error = "an answer without a token"
    return Outcome(
        number=number,
        tenant=tenant,
        asked=answer,
        intended=intended,
        sent=sent,
        admitted=admitted,
        times=tuple(times),
        tokens=max((one.made for one in heard), default=0),
        revision=" ".join(sorted({one.revision for one in heard if one.revision})),
        token_ids=tuple(token for one in heard for token in one.token_ids),
        text="".join(one.text for one in heard),
        error=error,
    )
