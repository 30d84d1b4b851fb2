"""Acts of several clients in threads of which one runs at a time, as the machine says: a seed tells the whole story."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from tests.eul_serve.registry.model.memory_store import Died, Fault

LIMIT_SECONDS = 60
"""How long one operation may take before the machine takes it for hung."""


class Running:
    """One act of one client, stopped before each of its operations."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act, self._go, self._back = act, threading.Semaphore(0), threading.Semaphore(0)
        self._fault: Fault | None = None
        self.next = "begin"
        self.done, self.faults = False, 0
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, what: str) -> Fault | None:
        """Stop before an operation; called by the act."""
        self.next = what
        self._back.release()
        self._go.acquire()
        return self._fault

    def step(self, fault: Fault | None = None) -> None:
        """Let the act do its next operation, and all that it does before the one after."""
        self.faults += fault is not None
        self._fault = fault
        self._go.release()
        if not self._back.acquire(timeout=LIMIT_SECONDS):
            raise AssertionError(f"an act hangs after {self.next}")
        if self.done:
            self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self.result = self._act()
        except BaseException as error:  # the machine judges it, whatever it is
            self.error = error
        self.done = True
        self._back.release()

    @property
    def died(self) -> bool:
        """Whether its client was killed."""
        return isinstance(self.error, Died)


def one_by_one(works: Iterable[partial[None]]) -> None:
    """Do works in their order, in the place of `reader.at_once`: whose threads would run as they like."""
    for work in works:
        work()


class OneByOne:
    """A pool that does works in their order, and none after one that failed."""

    def __init__(self, threads: int, name: str) -> None:
        self._settings = threads, name

    def __enter__(self) -> OneByOne:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(self, work: Callable[[Any], Any], *items: Iterable[Any]) -> Iterator[Any]:
        """Return what the works return, as they are asked for."""
        return map(work, *items)
