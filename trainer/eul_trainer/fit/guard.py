"""A watch on text that nothing is asked of: a run whose loss there rises too far is given up."""

from __future__ import annotations

from eul_serve.errors import EulError
from eul_trainer.fit.stop import probe_rows
from eul_trainer.fit.training import Training


class Guard:
    """The loss on unrelated rows, against what it was before training; made before the first step."""

    def __init__(self, training: Training) -> None:
        rows = training.sets.unrelated or training.sets.retain
        self._limit = training.settings.unrelated_limit
        self._training = training
        self._rows = [rows[row] for row in probe_rows(len(rows))]
        self._words = "unrelated rows" if training.sets.unrelated else "rows to keep"
        self._before = training.mean_loss(self._rows) if self._limit else 0.0

    def check(self, step: int) -> dict[str, float]:
        """Measure, where a limit is set.

        Args:
            step: Steps taken.

        Returns:
            The loss by the name `unrelated`, nats; nothing without a limit.

        Raises:
            EulError: It has risen past the limit, or is not a number.
        """
        if not self._limit:
            return {}
        loss = self._training.mean_loss(self._rows)
        if not loss - self._before <= self._limit:
            raise EulError(
                f"given up after step {step}: the loss on {self._words} rose from {self._before:.2f} to {loss:.2f} "
                f"nats, --unrelated-limit allows {self._limit:g}; nothing was written, a checkpoint is kept: lower "
                f"--learning-rate (now {self._training.settings.learning_rate:g}) with --fresh, or raise the limit"
            )
        return {"unrelated": loss}
