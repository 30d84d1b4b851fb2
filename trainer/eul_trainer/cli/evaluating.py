"""What the commands that measure bundles share: reading sets, and running an evaluation with progress and a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from eul_serve.format import Bundle, read_base
from eul_trainer.cli.progress import Advance, progress

if TYPE_CHECKING:
    from eul_trainer.evaluation.cache import Cache
    from eul_trainer.evaluation.evaluate import EvalSet, Evaluation
    from eul_trainer.evaluation.scoring import Tick
    from eul_trainer.evaluation.systems import Systems
    from eul_trainer.model.load import Network
    from eul_trainer.records import Fields

Found = TypeVar("Found")
RESERVED = ("retain", "unseen")
"""Names of sets that no file of rows to forget gives its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is measured, and how."""

    model: str
    """The base model."""
    bundles: Sequence[Path]
    """Bundles to measure beside it."""
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
    change: Callable[[Network], object] | None = None
    """Changes the weights of models and bundles before they are measured."""
    note: str = ""
    """What the change is called."""


def run_evaluation(what: str, asked: Asked, sets: Sequence[EvalSet]) -> tuple[Evaluation, Systems]:
    """Measure a base model, bundles and a twin, one model at a time in memory.

    Args:
        what: What the progress is called.
        asked: What is measured.
        sets: The rows.

    Returns:
        What was measured, and the base model with its bundles.
    """
    from eul_trainer.evaluation.cache import open_cache
    from eul_trainer.evaluation.evaluate import Evaluator

    count = len(revisions(asked)) + bool(asked.twin)
    with open_cache(asked.cache) as kept:
        evaluator = Evaluator(sets, kept, tokens=asked.tokens)
        with progress(what, evaluator.total(count), asked.quiet) as evaluator.watch:
            for systems, called in each_model(asked):
                evaluator.measure(systems, called)
            return evaluator.finish(systems), systems


def each_model(asked: Asked) -> Iterator[tuple[Systems, str]]:
    """Load the models one after another, so that one at a time is in memory.

    Args:
        asked: What is measured.

    Yields:
        The twin, if there is one, then the base model with the bundles, each with its own name.
    """
    from eul_trainer.evaluation.systems import BASE, TWIN, Systems, open_bundles
    from eul_trainer.model.load import load_model, resolve

    opened = open_bundles(asked.bundles, read_base(resolve(asked.model)).fingerprint)
    if asked.twin:
        yield Systems(load_model(asked.twin, asked.device), [], change=asked.change, note=asked.note), TWIN
    yield Systems(load_model(asked.model, asked.device), opened, change=asked.change, note=asked.note), BASE


def for_each_system(
    what: str, asked: Asked, results: int, compute: Callable[[Systems, str, Cache, Tick], Found]
) -> dict[str, Found]:
    """Compute something for every system.

    Args:
        what: What the progress is called.
        asked: What is measured.
        results: How many results a system has.
        compute: Takes the systems, the name of the one that is meant, the cache, and what is told about results.

    Returns:
        What was computed, the base model first and a twin last.
    """
    from eul_trainer.evaluation.cache import open_cache

    found: dict[str, Found] = {}
    names = [*revisions(asked), *(["twin"] if asked.twin else [])]
    with open_cache(asked.cache) as kept, progress(what, results * len(names), asked.quiet) as advance:
        tally = Tally(advance)
        for systems, called in each_model(asked):
            for name in systems.revisions:
                found[called if name == "base" else name] = compute(systems, name, kept, tally)
    return {name: found[name] for name in names}


class Tally:
    """Counts results for a progress bar."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._done = advance, 0

    def __call__(self, more: int, system: str) -> None:
        """Count so many results more."""
        self._done += more
        self._advance(self._done, system)


def fresh_systems(asked: Asked) -> dict[str, tuple[str, Callable[[], Systems]]]:
    """Return how to load each system by itself, for attacks that change it: by name, what is on, and the loading.

    Args:
        asked: What is attacked.

    Returns:
        The base model, each bundle, and the twin if there is one.
    """
    from eul_trainer.evaluation.systems import BASE, TWIN, Systems, open_bundles
    from eul_trainer.model.load import load_model, resolve

    def load(model: str, bundles: Sequence[tuple[str, Bundle]]) -> Systems:
        return Systems(load_model(model, asked.device), bundles)

    opened = open_bundles(asked.bundles, read_base(resolve(asked.model)).fingerprint)
    found: dict[str, tuple[str, Callable[[], Systems]]] = {BASE: (BASE, partial(load, asked.model, []))}
    for name, bundle in opened:
        found[name] = (name, partial(load, asked.model, [(name, bundle)]))
    return found | ({TWIN: (BASE, partial(load, asked.twin, []))} if asked.twin else {})


def revisions(asked: Asked) -> dict[str, str | None]:
    """Return the revision of each bundle by name, None for the base model."""
    from eul_trainer.evaluation.systems import BASE, open_bundles
    from eul_trainer.model.load import resolve

    opened = open_bundles(asked.bundles, read_base(resolve(asked.model)).fingerprint)
    return {BASE: None, **{name: bundle.revision for name, bundle in opened}}


def forget_sets(paths: Sequence[Path], fields: Fields) -> list[EvalSet]:
    """Read files of rows to forget; each set is named after its file, with a number where two share a name."""
    from eul_trainer.evaluation.evaluate import EvalSet
    from eul_trainer.records import read_rows

    names: list[str] = []
    for path in paths:
        stem = path.name.split(".")[0] or path.name
        taken = sum(name == stem or name.startswith(f"{stem}-") for name in names)
        names.append(f"{stem}-{taken + 1}" if taken or stem in RESERVED else stem)
    return [
        EvalSet(name=name, kind="forget", rows=read_rows(path, fields)) for name, path in zip(names, paths, strict=True)
    ]
