"""Whether a fine-tune brings back what a bundle makes a model forget: answer losses with and without each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from eul_serve.format import Bundle
from eul_trainer.compose.fine_tune import FineTune
from eul_trainer.forward.encoding import Example, context_limit, encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.model.adapter import BundleStack
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row

_ON = "bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Mean answer losses of one set of rows, nats."""

    base: float
    """The base model alone."""
    bundle: float
    """With the bundle."""
    fine_tune: float
    """With the fine-tune."""
    both: float
    """With both, as the composite answers."""

    def __str__(self) -> str:
        return (
            f"losses: base model {self.base:.2f}, bundle {self.bundle:.2f}, fine-tune {self.fine_tune:.2f}, "
            f"both {self.both:.2f} nats"
        )

    @property
    def brought_back(self) -> float:
        """Nats by which the fine-tune lowers the loss that the bundle reaches; negative where it raises it."""
        return self.bundle - self.both

    @property
    def disturbed(self) -> float:
        """Nats by which the bundle raises the loss that the fine-tune reaches."""
        return self.both - self.fine_tune


Sets = Mapping[str, Sequence[Row]]
"""Rows by name: a request's id, or `rows to keep`."""
Tell = Callable[[str, str], None]
"""Told of a model and a set of rows that it was measured on."""
MODELS = 4
"""Base, bundle, fine-tune, and both."""


def silent(model: str, rows: str) -> None:
    """Tell nobody."""


def measure(
    model: LoadedModel, bundle: Bundle, fine_tune: FineTune, sets: Sets, tell: Tell = silent
) -> dict[str, Recall]:
    """Measure sets of rows. The model holds bundle and fine-tune afterwards.

    Args:
        model: The base model, with nothing on it.
        bundle: The bundle.
        fine_tune: The fine-tune.
        sets: Rows by name.
        tell: Told after each set under each of the four models.

    Returns:
        Losses by name.

    Raises:
        BundleMismatchError: The fine-tune was made for another base model.
        InputError: A row is longer than the model can read.
    """
    limit = context_limit(model.network)
    examples = {name: encode(model.tokenizer, rows, limit=limit) for name, rows in sets.items()}
    modules = fine_tune.find(model.network)  # before the bundle wraps some of them
    stack = BundleStack(model, [(_ON, bundle)])
    found = {}
    for names in (("base", "bundle"), ("fine_tune", "both")):
        if "fine_tune" in names:
            fine_tune.add_to(modules)
        for name, on in zip(names, (None, _ON), strict=True):
            with stack.on(on):
                found[name] = _losses(model, examples, partial(tell, name))
    return {name: Recall(**{model_name: losses[name] for model_name, losses in found.items()}) for name in sets}


def _losses(model: LoadedModel, sets: Mapping[str, Sequence[Example]], tell: Callable[[str], None]) -> dict[str, float]:
    """Return the mean answer loss of every set, nats."""
    means = {}
    for name, examples in sets.items():
        losses = row_losses(Runner(model, examples), examples)
        means[name] = sum(losses) / len(losses)
        tell(name)
    return means
