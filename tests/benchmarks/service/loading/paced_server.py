"""Our whole server on a fake engine: python -m loading.paced_server ROOT CACHE POLL_SECONDS STEP_SECONDS."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from prometheus_client import REGISTRY

from eul_serve.address import Address
from eul_serve.engine.base import Engine, Piece, Work
from eul_serve.rpc.transport import TransportSettings
from eul_serve.serve.logs import set_up_logs
from eul_serve.serve.run import serve
from eul_serve.serve.settings import ServeSettings
from eul_serve.swap.leases import LeaseLimits
from eul_serve.swap.policy_source import PolicySource
from loading.counted import count_at_signal
from tests.eul_serve.conftest import PLAIN_BASE
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import settings_at

HELD = 1
"""A prompt that begins with this token is answered slowly, so that its stream stays open."""
HELD_SECONDS = 60.0
"""Between two tokens of such an answer."""
MOST = 20_000
"""Requests at once that nothing in front of the engine turns away."""
CONTEXT = 1 << 20


class PacedEngine(FakeEngine):
    """Answers with the head of the revision's digest at a pace, and remembers nothing, so that its memory stays."""

    async def generate(self, work: Work) -> AsyncIterator[Piece]:
        key, head = 0, "base"
        if work.bundle is not None:
            key, head = work.bundle.id, work.bundle.revision[7:15]
        pause = HELD_SECONDS if work.token_ids[0] == HELD else self.step
        last = work.sampling.max_tokens - 1
        self.running[key] += 1
        try:
            for index in range(last + 1):
                if index:
                    await asyncio.sleep(pause)
                self._check(work)
                reason = "length" if index == last else None
                yield Piece(text=f"{head} ", token_ids=(index % 256,), finish_reason=reason)
        finally:
            self.running[key] -= 1

    async def score(self, work: Work, continuations: Sequence[tuple[int, ...]]) -> tuple[float, ...]:
        self._check(work)
        return tuple(-float(len(one)) for one in continuations)


def paced_settings(root: Path, cache: str, poll_seconds: float) -> ServeSettings:
    """Return the settings of a server over a folder that turns nobody away."""
    settings = settings_at(
        root,
        ready_file=root / "ready.json",
        poll_seconds=poll_seconds,
        limits=LeaseLimits(total=MOST, tenant=MOST),
        deadline_seconds=3600.0,
        admin=TransportSettings(listen=Address("127.0.0.1", 0)),
    )
    return replace(settings, cache=root / cache)


def main(root: Path, cache: str, poll_seconds: float, step: float) -> None:
    """Run the server until a signal; end with status 1 where the engine saw what it never may."""
    engine = PacedEngine(PLAIN_BASE, capacity=16, max_context=CONTEXT, step=step, batch=MOST)

    async def start(_: PolicySource) -> Engine:
        return engine

    count_at_signal()
    set_up_logs("text")
    asyncio.run(serve(paced_settings(root, cache, poll_seconds), start, lambda _: None, REGISTRY))
    if engine.violations:
        sys.exit("\n".join(engine.violations))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
