"""Bundles on their way into a worker: read, checked and cast in a thread, while the worker goes on decoding."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eul_serve.engine.compat import LoRAModel
from eul_serve.format.weights import LayerWeights

MAX_WAITING = 64
"""Bundles that may lie ready without being taken up; the oldest is dropped, and read again if it is asked for."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A bundle that is ready for the slots."""

    rank: int
    """Hidden units per layer."""
    activation: str
    """Name of the activation."""
    layers: Mapping[str, LayerWeights]
    """Layers in the engine's dtype, by path of the module in the worker's model."""
    seconds: dict[str, float]
    """How long each stage took, by its name."""
    fine_tune: LoRAModel | None = None
    """A composite's fine-tune, as vLLM reads it."""


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took.

    Args:
        seconds: Where, by name of the stage.
        stage: Its name.

    Yields:
        Nothing.
    """
    begin = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - begin


class Staging:
    """The bundles of one worker that are being read, or are ready."""

    def __init__(self, read: Callable[[Path], Staged]) -> None:
        """Start with none.

        Args:
            read: Reads and checks a bundle; runs in a thread.
        """
        self._read = read
        self._work: dict[Path, Future[Staged]] = {}
        self._lock = threading.Lock()
        # One thread: two would fight for the processors that decode.
        self._threads = ThreadPoolExecutor(1, "eul-stage")

    def start(self, path: Path) -> None:
        """Begin to read a bundle; returns at once, and changes nothing where it is being read already.

        Args:
            path: Its directory.
        """
        with self._lock:
            if path not in self._work:
                while len(self._work) >= MAX_WAITING:
                    self._work.pop(next(iter(self._work))).cancel()
                self._work[path] = self._threads.submit(self._read, path)

    def state(self, path: Path) -> dict[str, float] | str | None:
        """Say how far a bundle is.

        Args:
            path: Its directory.

        Returns:
            None while it is read, the seconds of its stages when it is ready, or the error's words; a failed one is
            forgotten with that, so that it can be tried again.
        """
        work = self._work.get(path)
        if work is None:
            return "it was not staged, or too many others were since"
        if not work.done():
            return None
        if (error := work.exception()) is not None:
            self._work.pop(path, None)
            return f"{type(error).__name__}: {error}"
        return work.result().seconds

    def take(self, path: Path) -> Staged:
        """Return a bundle; read now where it was not staged.

        Args:
            path: Its directory.

        Returns:
            The checked bundle.

        Raises:
            EulError: It is refused.
        """
        with self._lock:
            work = self._work.pop(path, None)
        return self._read(path) if work is None else work.result()
