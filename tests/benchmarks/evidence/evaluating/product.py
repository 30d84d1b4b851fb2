"""The evaluation as `eul-train eval` runs it, with the seconds of its phases."""

from __future__ import annotations

import tempfile
from pathlib import Path

from eul_trainer.evaluation.cache import open_cache
from eul_trainer.evaluation.evaluate import Evaluation, Evaluator
from eul_trainer.evaluation.systems import Systems
from evaluating.clock import ANSWERING, SCORING, Clock, Instant, now
from evaluating.rows import Chunk


class ProductEvaluator:
    """Evaluates all systems together, chunk by chunk, each with an empty cache."""

    def __init__(self, systems: Systems, tokens: int) -> None:
        self.systems, self.tokens = systems, tokens

    def evaluate(self, chunk: Chunk) -> tuple[Evaluation, Clock]:
        """Return what was measured of a chunk, and the seconds by phase."""
        clock, ticks = Clock(), list[tuple[int, Instant]]()
        with tempfile.TemporaryDirectory() as folder, open_cache(Path(folder) / "cache") as cache:
            start = now()
            evaluator = Evaluator(chunk, cache, tokens=self.tokens)
            names = len(self.systems.revisions)
            scores = evaluator.total(names) - 2 * names * sum(len(part.rows) for part in chunk)
            evaluator.watch = lambda done, _: ticks.append((done, now()))
            evaluator.measure(self.systems)
            answered = now()
            evaluation = evaluator.finish(self.systems)
            clock.add(SCORING, answered, now())
        scored = next(instant for done, instant in ticks if done >= scores)  # answers are begun after the last score
        clock.add(SCORING, start, scored)
        clock.add(ANSWERING, scored, answered)
        return evaluation, clock
