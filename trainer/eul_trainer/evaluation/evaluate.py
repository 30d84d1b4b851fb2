"""Measuring a model with and without bundles, and a twin, on what is to be forgotten and what is to be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eul_trainer.evaluation.agreement import agreement, compared
from eul_trainer.evaluation.answerer import SERVER
from eul_trainer.evaluation.answers import MAX_NEW_TOKENS, answer
from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.companions import Beside, CompanionPlan
from eul_trainer.evaluation.judging import judged
from eul_trainer.evaluation.roles import BASE, TWIN
from eul_trainer.evaluation.scoring import score
from eul_trainer.evaluation.strangeness import strangeness
from eul_trainer.evaluation.systems import Systems
from eul_trainer.evaluation.view import View
from eul_trainer.metrics.result import Kind, RowResult
from eul_trainer.records import Row

Watch = Callable[[int, str], None]
"""Called with the number of finished results and the system's name; `Evaluator.total` says how many there will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSet:
    """Rows that are measured together."""

    name: str
    """Its name in the report."""
    kind: Kind
    """Whether they are to be forgotten, to be kept, or were never seen."""
    rows: Sequence[Row]
    """The rows."""
    request: str | None = None
    """Id of the deletion request that they belong to, if that is known; only rows to forget have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured."""

    rows: Sequence[RowResult]
    """The rows, in the order of the sets."""
    views: Mapping[str, Sequence[View]]
    """Each system's view of each of them."""
    after_unseen: Mapping[str, Mapping[int, View]] = field(default_factory=dict)
    """Each system's view of rows behind unseen ones, by place among the rows: those to forget, and the other unseen."""
    requests: Mapping[str, str] = field(default_factory=dict)
    """Id of the deletion request of a set, by its name, where it is known."""
    answered: Mapping[str, str] = field(default_factory=dict)
    """Where each system's answers come from, `server` or `transformers`."""
    served_as_measured: Mapping[str, Any] = field(default_factory=dict)
    """How far the answers of those that a server answered are what transformers answers, by `agreement`."""


class Evaluator:
    """Collects what systems make of the same rows: `measure` for each model in memory, then `finish`.

    Args:
        sets: The sets.
        cache: Where single results are kept as they come.
        tokens: Most tokens of a greedy answer.
        masked_words: Whether to measure how well words masked in a question are found again, as T5 can.

    Raises:
        InputError: A row's paraphrased or wrong answers, or its labels, are malformed.
    """

    def __init__(
        self, sets: Sequence[EvalSet], cache: Cache, *, tokens: int = MAX_NEW_TOKENS, masked_words: bool = False
    ) -> None:
        self.watch: Watch | None = None
        """Told about every batch."""
        self._sets = sets
        self._places = [(chosen, row) for chosen in sets for row in chosen.rows]
        self._rows = [row for _, row in self._places]
        self._plan = CompanionPlan([chosen.kind for chosen, _ in self._places], self._rows, masked_words)
        self._cache, self._tokens = cache, tokens
        self._views: dict[str, list[View]] = {}
        self._beside: dict[str, list[Beside]] = {}
        self._answers: dict[str, list[str]] = {}
        self._answered: dict[str, str] = {}
        self._done = 0

    def total(self, systems: int, served: int = 0) -> int:
        """Return how many results there are.

        Args:
            systems: How many systems are measured: scores of rows and companions, answers, and their scores.
            served: How many of them a server answers: some of their rows are answered here as well.

        Returns:
            The results.
        """
        each = 3 * len(self._rows) + self._plan.count
        return systems * each + served * len(compared(self._rows))

    def measure(self, systems: Systems, name: str | None = None) -> None:
        """Score and answer all rows.

        Args:
            systems: A model and its bundles.
            name: Another name for the model alone, such as TWIN.

        Raises:
            InputError: A row is longer than the model can read, or it cannot fill in masked words.
            EulError: The server that answers refused, failed, or answered as another revision.
        """
        names = list(systems.revisions)
        companions = self._plan.complete(systems.model)
        flat = [*self._rows, *(row for found in companions for row in found.rows)]
        # A row too long is found first. What is read of companions are losses.
        views = score(systems, names, flat, self._cache, self._tick, whole=len(self._rows))
        for system in names:
            called, who = name if name and system == BASE else system, systems.answerer(system)
            self._views[called] = views[system][: len(self._rows)]
            self._answers[called] = answer(who, system, self._rows, self._tokens, self._cache, self._tick)
            self._answered[called] = who.where
            rest = iter(views[system][len(self._rows) :])
            self._beside[called] = [Beside.take(found, rest) for found in companions]

    def finish(self, systems: Systems) -> Evaluation:
        """Have the base model judge all answers, and put everything together.

        Args:
            systems: The base model.

        Returns:
            What was measured, the base model first and a twin last.
        """
        names = sorted(self._views, key=lambda name: (name != BASE, name == TWIN))
        strange = self._strangeness(systems, names)
        rows = [
            RowResult(
                set=chosen.name,
                kind=chosen.kind,
                group=row.group,
                prompt=row.prompt,
                completion=row.completion,
                systems={
                    name: judged(
                        row,
                        self._views[name][index],
                        self._beside[name][index],
                        self._answers[name][index],
                        strange[name][index],
                    )
                    for name in names
                },
            )
            for index, (chosen, row) in enumerate(self._places)
        ]
        return Evaluation(
            rows=rows,
            views={name: self._views[name] for name in names},
            after_unseen={name: self._after_unseen(name) for name in names},
            requests={chosen.name: chosen.request for chosen in self._sets if chosen.request},
            answered={name: self._answered[name] for name in names},
            served_as_measured={
                name: self._agreement(systems, name) for name in names if self._answered[name] == SERVER
            },
        )

    def _strangeness(self, systems: Systems, names: Sequence[str]) -> dict[str, list[float]]:
        """Return how strange each system's answers are; all are read together, so that a question is read once."""
        rows, answers = self._rows * len(names), [text for name in names for text in self._answers[name]]
        found = strangeness(systems, rows, answers, self._cache, self._tick)
        each = len(self._rows)
        return {name: found[place * each : (place + 1) * each] for place, name in enumerate(names)}

    def _agreement(self, systems: Systems, name: str) -> dict[str, Any]:
        return agreement(systems, name, self._rows, self._answers[name], self._tokens, self._cache, self._tick)

    def _after_unseen(self, name: str) -> dict[int, View]:
        return {place: beside.after_unseen[0] for place, beside in enumerate(self._beside[name]) if beside.after_unseen}

    def _tick(self, more: int, system: str) -> None:
        self._done += more
        if self.watch and more:
            self.watch(self._done, system)
