"""What the commands that measure bundles share: running models over rows, with progress and a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from eul_trainer.cli.asked import Asked
from eul_trainer.cli.progress import Advance, progress

if TYPE_CHECKING:
    from eul_trainer.evaluation.cache import Cache
    from eul_trainer.evaluation.evaluate import EvalSet, Evaluation
    from eul_trainer.evaluation.scoring import Tick
    from eul_trainer.evaluation.systems import Systems

Found = TypeVar("Found")


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
    from eul_trainer.evaluation.roles import TWIN
    from eul_trainer.model.devices import SINGLE

    with open_cache(asked.cache, asked.devices or SINGLE) as kept:
        evaluator = Evaluator(sets, kept, tokens=asked.tokens, masked_words=asked.masked_words)
        with progress(what, evaluator.total(asked.systems, len(asked.served)), asked.quiet) as evaluator.watch:
            if asked.twin:
                evaluator.measure(load_twin(asked, asked.twin), TWIN)
            systems = load_base(asked)
            evaluator.measure(systems)
            return evaluator.finish(systems), systems


def load_base(asked: Asked) -> Systems:
    """Load the base model with the bundles."""
    from eul_trainer.evaluation.systems import Systems
    from eul_trainer.model.load import checksum, load_model

    model = load_model(asked.model, asked.device)
    if asked.devices and asked.devices.count > 1:
        asked.devices.check_same(checksum(model.network), f"weights of {asked.model}")
    return Systems(model, asked.bundles, change=asked.change, note=asked.note, server=asked.server)


def load_twin(asked: Asked, twin: str) -> Systems:
    """Load the twin; let go of it before the base model is loaded, so that one model at a time is in memory."""
    return load_base(replace(asked, model=twin, bundles=[], server=None))


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
    from eul_trainer.evaluation.roles import BASE, TWIN

    with (
        open_cache(asked.cache) as kept,
        progress(what, results * asked.systems, asked.quiet) as advance,
    ):
        tally = Tally(advance)
        of_twin = {TWIN: compute(load_twin(asked, asked.twin), BASE, kept, tally)} if asked.twin else {}
        systems = load_base(asked)
        return {name: compute(systems, name, kept, tally) for name in systems.revisions} | of_twin


class Tally:
    """Counts results for a progress bar."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._done = advance, 0

    def __call__(self, more: int, system: str) -> None:
        """Count so many results more."""
        self._done += more
        self._advance(self._done, system)


def fresh_systems(asked: Asked) -> Mapping[str, tuple[str, Callable[[], Systems]]]:
    """Return how to load each system by itself, for attacks that change it: by name, what is on, and the loading.

    Args:
        asked: What is attacked.

    Returns:
        The base model, each bundle, and the twin if there is one.
    """
    from eul_trainer.evaluation.roles import BASE, TWIN

    found = {BASE: (BASE, partial(load_base, replace(asked, bundles=[])))}
    for name, bundle in asked.bundles:
        found[name] = (name, partial(load_base, replace(asked, bundles=[(name, bundle)])))
    return found | ({TWIN: (BASE, partial(load_twin, asked, asked.twin))} if asked.twin else {})
