"""A stream of requests that runs while an alias moves, and remembers what became of each."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from eul_serve.client import Client
from eul_serve.errors import EulError


@dataclass(slots=True)
class Traffic:
    """Requests from several threads, all of one tenant, one after another in each."""

    address: str
    """Where the server listens, host:port."""
    token: str
    """The tenant's bearer token."""
    prompts: Sequence[str]
    """Asked in turn."""
    threads: int = 3
    """Requests in flight at a time."""
    revisions: list[str] = field(default_factory=list)
    """Revision of every answer, in the order of arrival."""
    failures: list[str] = field(default_factory=list)
    """Error text of every failed request."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._running = [threading.Thread(target=self._ask, daemon=True) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join(timeout=60)

    @property
    def seen(self) -> list[str]:
        """The different revisions in the order in which they first answered."""
        return list(dict.fromkeys(self.revisions))

    def wait(self, revision: str | None = None, count: int = 8, seconds: float = 90.0) -> bool:
        """Wait until a revision (or any) has answered `count` times.

        Args:
            revision: The revision; None counts every answer.
            count: Answers to wait for.
            seconds: Longest wait.

        Returns:
            Whether it happened in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if sum(revision in (None, found) for found in list(self.revisions)) >= count:
                return True
            time.sleep(0.1)
        return False

    def _ask(self) -> None:
        with Client(self.address, token=self.token) as client:
            for prompt in itertools.cycle(self.prompts):
                if self._stop.is_set():
                    return
                try:
                    self.revisions.append(client.generate([("user", prompt)], max_tokens=16).revision)
                except EulError as error:
                    self.failures.append(str(error))
