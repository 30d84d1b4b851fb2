"""`eul serve` as a process of its own, on the fake engine: python fake_server.py ROOT [LOAD_SECONDS]."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from prometheus_client import REGISTRY

from eul_serve.engine.base import Engine
from eul_serve.serve.run import serve
from eul_serve.swap.policy_source import PolicySource
from tests.eul_serve.conftest import PLAIN_BASE
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import settings_at


async def start(_: PolicySource) -> Engine:
    return FakeEngine(PLAIN_BASE, step=0.01, load_step=float(sys.argv[2]), max_context=1000)


root = Path(sys.argv[1])
options = settings_at(root, ready_file=root / "ready.json")
asyncio.run(serve(options, start, lambda ready: sys.stdout.write(ready.to_json() + "\n"), REGISTRY))
