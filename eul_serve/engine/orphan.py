"""Ends engine and workers when the server that they work for is gone.

vLLM's engine process does not notice that its parent was killed: it would wait for work for ever and keep the memory of
a model. `eul serve` names itself in `EUL_FRONT`; in any other program nothing is watched.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress

FRONT = "EUL_FRONT"
"""Environment variable with the process id of the server."""

_POLL_SECONDS = 1.0
_THREAD = "eul-orphan"


def announce_front() -> None:
    """Name this process as the server that its children work for."""
    os.environ[FRONT] = str(os.getpid())
    os.register_at_fork(after_in_child=watch)


def watch() -> None:
    """Watch the server from a thread, in a child of it; calling it again changes nothing."""
    front = os.environ.get(FRONT)
    if front is None or front == str(os.getpid()) or any(one.name == _THREAD for one in threading.enumerate()):
        return
    threading.Thread(target=_leave_with, args=(int(front),), name=_THREAD, daemon=True).start()


def _leave_with(front: int) -> None:
    with suppress(ProcessLookupError):  # it was gone before we looked
        _wait_for_end(front)
    os._exit(1)  # nobody is left who could be told


def _wait_for_end(front: int) -> None:
    if hasattr(os, "pidfd_open"):  # Linux: wakes at once, and cannot mistake a later process for the server
        select.select([os.pidfd_open(front)], [], [])
        return
    while True:
        os.kill(front, 0)
        time.sleep(_POLL_SECONDS)
