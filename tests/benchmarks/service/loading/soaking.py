"""Mixed load on one server, with aliases that move and looks from outside, and what is left when it has ended."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from eul_serve.errors import EngineError
from loading.home import ALIAS
from loading.processes import program, variables
from loading.samples import Sample, held, look
from loading.servers import Server
from tests.eul_serve.service_home import ServiceHome

LEAKS = ("streams", "waiting", "running", "leases", "on_revisions", "slots", "engine", "tasks")
"""What `held` finds of requests, and nobody asks any more."""
IDLE_SECONDS = 60.0
"""What a server has to let go of everything."""
SETTLE_SECONDS = 2.0
"""Before it is looked at: connections close, and drained revisions leave."""


@contextmanager
def client_of(server: Server, orders: Mapping[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Run the client until it ends; kill it where the context ends first."""
    pipe = subprocess.PIPE
    with subprocess.Popen(program("mixing"), stdin=pipe, stdout=pipe, text=True, env=variables()) as process:
        try:
            assert process.stdin is not None, "it was made as a pipe"
            process.stdin.write(json.dumps({"address": server.listen, **orders}) + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


class Soak:
    """One server, its load, and what was seen of it."""

    def __init__(self, server: Server, home: ServiceHome, revisions: Mapping[str, list[str]], every: float) -> None:
        """Take what is watched, and what moves.

        Args:
            server: The server.
            home: Its registry.
            revisions: Both revisions of every bundle; its alias points to the first.
            every: Seconds between two moves of an alias.
        """
        self._server, self._home, self._every = server, home, every
        self._paths = {name: list(both) for name, both in revisions.items()}
        self.samples: list[Sample] = []
        self.swaps = 0

    def run(self, orders: Mapping[str, Any], seconds: float, sample_seconds: float) -> dict[str, Any]:
        """Let the load run for some seconds.

        Args:
            orders: What the client is told, the seconds excepted.
            seconds: How long.
            sample_seconds: Between two looks.

        Returns:
            What the client counted.

        Raises:
            EngineError: The server or the client ended.
        """
        with client_of(self._server, {**orders, "seconds": seconds}) as client:
            begin = now = time.monotonic()
            look_at, move_at = begin + sample_seconds, begin + self._every
            while client.poll() is None and now < begin + seconds:
                if self._server.process.poll() is not None:
                    raise EngineError(f"the server ended with status {self._server.process.returncode}")
                if now >= look_at:
                    self.samples.append(look(self._server, (now - begin) / 60))
                    look_at += sample_seconds
                if now >= move_at:
                    self._move()
                    move_at += self._every
                time.sleep(0.05)
                now = time.monotonic()
            output, _ = client.communicate(timeout=300)
        if client.returncode:
            raise EngineError(f"the client's process ended with status {client.returncode}")
        found: dict[str, Any] = json.loads(output)
        return found

    def idle(self) -> dict[str, float]:
        """Return what the server holds when nobody asks: as soon as that is nothing, or after a time all the same."""
        time.sleep(SETTLE_SECONDS)
        end = time.monotonic() + IDLE_SECONDS
        while any((found := held(self._server))[name] for name in LEAKS if name != "tasks"):
            if time.monotonic() > end:
                break
            time.sleep(1.0)
        return found

    def _move(self) -> None:
        names = list(self._paths)
        name = names[self.swaps % len(names)]
        self._paths[name].reverse()
        self._home.registry.promote(name, self._paths[name][0], ALIAS, actor="benchmark")
        self.swaps += 1
