"""Ends engine and workers when the server that they work for is gone.

vLLM's engine process does not notice that its parent was killed: it would wait for work for ever and keep the memory of
a model. `eul serve` names itself in `EUL_FRONT`; in any other program nothing is watched.
"""

from __future__ import annotations

import os
import threading
import time

FRONT = "EUL_FRONT"
"""Environment variable with the process id of the server."""

_POLL_SECONDS = 1.0
_THREAD = "eul-orphan"


def announce_front() -> None:
    """Name this process as the server that its children work for."""
    os.environ[FRONT] = str(os.getpid())
    os.register_at_fork(after_in_child=watch)


def watch() -> None:
    """Watch the parent from a thread, in a child of the server; calling it again changes nothing."""
    front = os.environ.get(FRONT)
    if front is None or front == str(os.getpid()) or any(one.name == _THREAD for one in threading.enumerate()):
        return
    threading.Thread(target=_leave_with, args=(os.getppid(),), name=_THREAD, daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)  # nobody is left who could be told
