"""Ctrl-C and SIGTERM: a run ends its step, is saved, and says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from eul_serve.errors import EulError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(EulError):
    """A signal ended the run; the exit status is 128 and the signal's number, as a shell would give it."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.exit_status = 128 + number


class Interrupt:
    """Whether a signal asked the run to end."""

    def __init__(self) -> None:
        self.number = 0
        """The signal's number, or 0 for none."""
        self.patient = False
        """Whether the run looks at `number` by itself; if not, a signal ends it at once."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; the second one never waits."""
        if not self.patient or self.number:
            raise Interrupted(
                number, f"ended by {signal_name(number)}; the last checkpoint, if any, stays: run the line again"
            )
        self.number = number


def signal_name(number: int) -> str:
    """Return a signal's name, such as SIGTERM."""
    return signal.Signals(number).name


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Take Ctrl-C and SIGTERM while the context lasts; elsewhere than in the main thread nothing is taken.

    Yields:
        What the run looks at between two steps.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
