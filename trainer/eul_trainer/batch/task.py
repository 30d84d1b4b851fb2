"""What goes to a worker and what comes back: plain values as JSON text, so that nothing else is ever deserialised."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_serve.format import check_name
from eul_trainer.settings import FitSettings

VERSION = 1
"""Form of the text; a worker with another installation refuses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """A data file and the digest of its rows, so that a file that changed is found before any work."""

    path: Path
    """The file, absolute."""
    digest: str
    """Digest of its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One request to honour: everything that a worker needs, as paths and plain values."""

    id: str
    """Opaque id of the request."""
    model: Path
    """Directory of the base model, absolute."""
    base: str
    """Its fingerprint."""
    forget: RowFile
    """The rows to forget."""
    retain: RowFile
    """The retained rows; the digest is that of the rows which are left after `taken_out`."""
    taken_out: tuple[RowFile, ...]
    """Rows of other requests that are taken out of the retained ones."""
    settings: FitSettings
    """How to train."""
    device: str
    """Where to compute, as torch names it."""
    folder: Path
    """Output directory of the batch, absolute, which all workers must see."""
    unrelated: RowFile | None = None
    """Rows whose loss must not rise; None stands for those to keep."""
    attempt: int = 1
    """Number of this attempt in this call, from 1."""

    @property
    def out(self) -> Path:
        """Where the layer goes."""
        return layer_path(self.folder, self.id)

    @property
    def log(self) -> Path:
        """Where the log of the request goes."""
        return log_path(self.folder, self.id)

    def to_json(self) -> str:
        """Return the task as text."""
        return json.dumps({"version": VERSION, **asdict(self)}, default=str, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read a task.

        Args:
            text: What `to_json` returned.

        Returns:
            The task.

        Raises:
            InputError: It is from another version of this package.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw.pop("version") != VERSION:
                raise KeyError("version")
            raw |= {name: Path(raw[name]) for name in ("model", "folder")}
            raw |= {name: _file(raw[name]) for name in ("forget", "retain")}
            raw["unrelated"] = _file(raw["unrelated"]) if raw["unrelated"] else None
            raw["taken_out"] = tuple(_file(found) for found in raw["taken_out"])
            raw["settings"] = FitSettings(**raw["settings"])
            check_name(raw["id"], "request")  # it becomes part of paths
            return cls(**raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"batch: this worker cannot read its task ({type(error).__name__}); install the same version of "
                "eul-serve on every machine of the cluster"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended."""

    id: str
    """The request."""
    reason: str | None = None
    """Why it failed, in one line without any text of rows; None where the layer is written."""
    hopeless: bool = False
    """Whether the same would fail again, so that it is not tried again."""

    def to_json(self) -> str:
        """Return the ending as text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Ending:
        """Read what `to_json` returned."""
        return cls(**json.loads(text))


def layer_path(folder: Path, request: str) -> Path:
    """Return where the layer of a request lies."""
    return folder / "layers" / request


def log_path(folder: Path, request: str) -> Path:
    """Return where the log of a request lies."""
    return folder / "logs" / f"{request}.jsonl"


def _file(raw: dict[str, str]) -> RowFile:
    return RowFile(path=Path(raw["path"]), digest=raw["digest"])
