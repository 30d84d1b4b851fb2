"""One way to measure whatever forgets: a layer, a model that was trained anew, or SISA's shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from eul_serve.errors import InputError
from eul_serve.format import read_bundle
from eul_serve.format.bundle import CONFIG_FILE
from eul_trainer.baselines.sisa.ensemble import EnsembleRunner, ensemble_answers, open_ensemble
from eul_trainer.baselines.sisa.state import STATE_FILE
from eul_trainer.evaluation.local import greedy_answers
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.losses import RowScore, row_scores
from eul_trainer.forward.runner import Runner
from eul_trainer.model.adapter import BundleStack
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.records import Row


class Evaluated(Protocol):
    """A system that answers rows."""

    def scores(self, rows: Sequence[Row]) -> list[RowScore]:
        """Return how it answers rows under teacher forcing, by `eul_trainer.forward.losses.row_scores`."""

    def answers(self, rows: Sequence[Row], tokens: int) -> list[str]:
        """Return its greedy answers of at most a number of tokens."""


class WholeModel:
    """A model directory: the base model, a taught one, a twin, a baseline."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model

    def scores(self, rows: Sequence[Row]) -> list[RowScore]:
        """Return the scores of rows."""
        examples = encode(self.model.tokenizer, rows, limit=context_limit(self.model.network))
        return row_scores(Runner(self.model, examples), examples)

    def answers(self, rows: Sequence[Row], tokens: int) -> list[str]:
        """Return greedy answers."""
        examples = encode(self.model.tokenizer, rows, limit=context_limit(self.model.network))
        return greedy_answers(self.model, examples, tokens=tokens)


class LayeredModel(WholeModel):
    """A base model with a bundle on."""

    def __init__(self, model: LoadedModel, bundle: Path) -> None:
        super().__init__(model)
        self._stack = BundleStack(model, [("bundle", read_bundle(bundle, model.base.fingerprint))])

    def scores(self, rows: Sequence[Row]) -> list[RowScore]:
        """Return the scores of rows."""
        with self._stack.on("bundle"):
            return super().scores(rows)

    def answers(self, rows: Sequence[Row], tokens: int) -> list[str]:
        """Return greedy answers."""
        with self._stack.on("bundle"):
            return super().answers(rows, tokens)


class Ensemble:
    """SISA's shards, which answer by the mean of their probabilities."""

    def __init__(self, members: Sequence[LoadedModel]) -> None:
        self.members = members

    def scores(self, rows: Sequence[Row]) -> list[RowScore]:
        """Return the scores of rows."""
        examples = encode(self.members[0].tokenizer, rows, limit=context_limit(self.members[0].network))
        return row_scores(EnsembleRunner(self.members, examples), examples)

    def answers(self, rows: Sequence[Row], tokens: int) -> list[str]:
        """Return greedy answers."""
        examples = encode(self.members[0].tokenizer, rows, limit=context_limit(self.members[0].network))
        return ensemble_answers(self.members, examples, tokens=tokens)


def open_system(path: str, model: str | None = None, device: str = "cpu") -> Evaluated:
    """Open whatever lies in a directory.

    Args:
        path: A model directory, a SISA training, or a bundle.
        model: The model that a bundle was made for.
        device: Where to compute.

    Returns:
        The system.

    Raises:
        InputError: It is a bundle and no model was named, or it is none of them.
    """
    folder = Path(path)
    if (folder / STATE_FILE).exists():
        return Ensemble(open_ensemble(folder, device))
    if not (folder / CONFIG_FILE).exists():
        return WholeModel(load_model(path, device))
    if model is None:
        raise InputError(f"bundle {path!r}: name the model that it was made for with --model")
    return LayeredModel(load_model(model, device), folder)


def mean_scores(system: Evaluated, rows: Sequence[Row]) -> dict[str, float]:
    """Return the means of a system's scores: `loss` in nats and `accuracy`, 0 to 1."""
    scores = system.scores(rows)
    return {
        "loss": sum(score.loss for score in scores) / len(scores),
        "accuracy": sum(score.accuracy for score in scores) / len(scores),
    }
