"""`eul serve` as a process of its own, on the fake engine: python fake_server.py ROOT [LOAD_SECONDS]."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import REGISTRY

from eul_serve.engine.base import Engine, Piece, Work
from eul_serve.serve.logs import set_up_logs
from eul_serve.serve.run import serve
from eul_serve.swap.policy_source import PolicySource
from tests.eul_serve.conftest import PLAIN_BASE
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import settings_at


class QuotingEngine(FakeEngine):
    """Fails on a prompt that begins with `fail`, in words that quote it."""

    async def generate(self, work: Work) -> AsyncIterator[Piece]:
        text = bytes(work.token_ids).decode()
        if text.startswith("fail"):
            raise RuntimeError(f"cannot answer {text!r}")
        async for piece in super().generate(work):
            yield piece


async def start(_: PolicySource) -> Engine:
    return QuotingEngine(PLAIN_BASE, step=0.01, load_step=float(sys.argv[2]), max_context=1000)


set_up_logs(os.environ.get("LOG_FORMAT", "text"))
root = Path(sys.argv[1])
options = settings_at(root, ready_file=root / "ready.json")
asyncio.run(serve(options, start, lambda ready: print(ready.to_json()), REGISTRY))  # noqa: T201  # as the command does
