"""The record of a run while it lasts: a JSON-lines log that survives a kill, and TensorBoard's files.

The log has one line per step and one per measurement of the forget loss, after a first line that names the run. A run
that goes on brings the log to its checkpoint: later lines are taken out, and missing ones are written from the
checkpoint's curve. So every step is there once, however often the run was killed. It holds numbers, never a row's text.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from eul_serve.errors import CapacityError, InputError
from eul_trainer.output.directory import replace_file
from eul_trainer.upkeep.pace import Pace

Curve = Sequence[dict[str, float]]
"""Losses by step, as a checkpoint keeps them."""


class Recorder(Protocol):
    """Something that follows a run."""

    def begin(self, run: str, curve: Curve) -> None:
        """Take the run's digest and the losses of the steps that were taken before."""

    def step(self, number: int, losses: dict[str, float], pace: Pace) -> None:
        """Take a step: how many were taken, its losses, and the pace."""


class JsonLog:
    """A log of JSON lines."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self._path = path
        self._fresh = fresh

    def begin(self, run: str, curve: Curve) -> None:
        """Bring the file to the state after `curve`, whatever a killed run left of it.

        Args:
            run: Digest of the run's settings, data and model.
            curve: Losses of the steps taken.

        Raises:
            InputError: The file is something else, or the log of another run.
            CapacityError: The file cannot be written.
        """
        kept = self._kept(run)
        lines = [json.dumps({"event": "start", "run": run, "time": round(time.time(), 3)})]
        for number, losses in enumerate(curve, 1):
            lines += [kept.get(key, line) for key, line in _lines(number, losses, {})]
        replace_file(self._path, "".join(line + "\n" for line in lines))

    def _kept(self, run: str) -> dict[tuple[str, int], str]:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(f"log {str(self._path)!r}: cannot read: {error.strerror}; name another file") from error
        found = [(line, _parsed(line)) for line in lines if line.strip()]
        first = found[0][1] if found else {"event": "start", "run": run}
        if first.get("event") != "start":
            raise InputError(
                f"log {str(self._path)!r}: expected the log of a run or a new file, found another file; name a new file"
            )
        if first.get("run") != run and not self._fresh:
            raise InputError(
                f"log {str(self._path)!r}: the log of another run (other settings, data or model); name a new file, or "
                "replace it with --fresh"
            )
        return {(str(item.get("event")), int(item["step"])): line for line, item in found if "step" in item}

    def step(self, number: int, losses: dict[str, float], pace: Pace) -> None:
        """Write a step's lines, and hand them to the operating system at once.

        Args:
            number: Steps taken.
            losses: The step's losses.
            pace: The pace.

        Raises:
            CapacityError: The file cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(line + "\n" for _, line in _lines(number, losses, pace.to_json())))
        except OSError as error:
            raise CapacityError(
                f"log {str(self._path)!r}: cannot write: {error.strerror}; free space, and run the line again"
            ) from error


class TensorBoard:
    """Event files for TensorBoard, in the shape that `tensorboard --logdir DIR` reads."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise InputError(
                "--tensorboard: the package tensorboard is not there; pip install 'eul-serve[tensorboard]'"
            )
        self._folder = folder
        self._writer: Any = None

    def begin(self, run: str, curve: Curve) -> None:
        """Open the folder; steps after the checkpoint that a killed run had written are hidden by TensorBoard.

        Args:
            run: Digest of the run; not written.
            curve: Losses of the steps taken, which the folder has.

        Raises:
            CapacityError: The folder cannot be written.
        """
        from torch.utils.tensorboard import SummaryWriter

        with self._told():
            self._writer = SummaryWriter(str(self._folder), purge_step=len(curve) + 1)

    def step(self, number: int, losses: dict[str, float], pace: Pace) -> None:
        """Write a step's losses and pace."""
        with self._told():
            for name, value in {**losses, **pace.to_json()}.items():
                group = "pace" if name not in losses else "loss"
                self._writer.add_scalar(f"{group}/{name}", value, number)
            self._writer.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CapacityError(
                f"tensorboard {str(self._folder)!r}: cannot write: {error.strerror}; free space or name another"
            ) from error


def _lines(number: int, losses: dict[str, float], pace: dict[str, float]) -> Iterator[tuple[tuple[str, int], str]]:
    """Give the lines of a step, each with the key by which it is told from others."""
    own = {name: value for name, value in losses.items() if name != "probe"}
    yield ("step", number), json.dumps({"event": "step", "step": number, **own, **pace})
    if "probe" in losses:
        yield ("probe", number), json.dumps({"event": "probe", "step": number, "forget_loss": losses["probe"]})


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:  # the torn last line of a killed run
        return {}
    return found if isinstance(found, dict) else {}
