"""What the commands that measure bundles are asked for: systems, sets of rows, and where results go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eul_serve.errors import InputError
from eul_serve.format import Bundle, read_base
from eul_trainer.output.directory import check_apart, check_output

if TYPE_CHECKING:
    from eul_trainer.evaluation.evaluate import EvalSet
    from eul_trainer.evaluation.server import Server
    from eul_trainer.model.devices import Devices
    from eul_trainer.model.load import Network
    from eul_trainer.records import Fields

RESERVED = ("retain", "unseen")
"""Names of sets that no file of rows to forget gives its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is measured, and how."""

    model: str
    """The base model."""
    bundles: Sequence[tuple[str, Bundle]]
    """Bundles to measure beside it, by name."""
    twin: str | None
    """A model that was taught the same without what is to be forgotten."""
    cache: Path
    """Where results of single rows are kept."""
    tokens: int
    """Most tokens of a greedy answer."""
    device: str
    """Where to compute."""
    quiet: bool
    """Whether to show no progress."""
    masked_words: bool = False
    """Whether words masked in questions are to be found again."""
    devices: Devices | None = None
    """The processes that measure together; None for one alone."""
    change: Callable[[Network], object] | None = None
    """Changes the weights of models and bundles before they are measured."""
    note: str = ""
    """What the change is called."""
    server: Server | None = None
    """The server that answers as those that it serves."""

    @property
    def systems(self) -> int:
        """How many systems are measured, the base model and the twin included."""
        return 1 + len(self.bundles) + bool(self.twin)

    @property
    def served(self) -> frozenset[str]:
        """Names of the systems that the server answers."""
        return frozenset(self.server.adapters) if self.server else frozenset()


def check_places(out: Path, cache: Path | None) -> Path:
    """Check the output directory, and return where results of single rows are kept."""
    check_output(out)
    if cache:
        check_apart(out, cache, "--cache")
    return cache or out.with_name(f"{out.name}.cache")


def read_bundles(model: str, paths: Sequence[Path]) -> list[tuple[str, Bundle]]:
    """Read bundles for a base model, and name them after their directories."""
    from eul_trainer.evaluation.systems import open_bundles
    from eul_trainer.model.load import resolve

    return open_bundles(paths, read_base(resolve(model)).fingerprint)


def forget_sets(
    given: Sequence[tuple[str | None, Path]], fields: Fields, bundles: Sequence[tuple[str, Bundle]]
) -> list[EvalSet]:
    """Read files of rows to forget, and find out which request each belongs to.

    A set is named after its file, with a number where two share a name. Its request is the one that it was given with,
    or that of a bundle which was trained on just these rows; else it is not known.

    Args:
        given: Request's id, if one was named, and file.
        fields: The fields to read.
        bundles: The bundles by name.

    Returns:
        The sets.

    Raises:
        InputError: A file cannot be read, or no bundle covers the request.
    """
    from eul_trainer.evaluation.evaluate import EvalSet
    from eul_trainer.records import digest_rows, read_rows

    known = {request.id: request.data for _, bundle in bundles for request in bundle.manifest.requests}
    # Rows that two requests have in common name neither: they stand for all.
    times = Counter(known.values())
    trained_on = {data: request for request, data in known.items() if times[data] == 1}
    names: list[str] = []
    sets = []
    for request, path in given:
        if request and bundles and request not in known:
            have = ", ".join(sorted(known))
            raise InputError(f"--forget {request}={path}: no bundle has request {request!r}; they have {have}")
        rows = read_rows(path, fields)
        names.append(_name(path, names))
        found = request or trained_on.get(digest_rows(rows))
        sets.append(EvalSet(name=names[-1], kind="forget", rows=rows, request=found))
    return sets


def _name(path: Path, names: Sequence[str]) -> str:
    stem = path.name.split(".")[0] or path.name
    taken = sum(name == stem or name.startswith(f"{stem}-") for name in names)
    return f"{stem}-{taken + 1}" if taken or stem in RESERVED else stem
