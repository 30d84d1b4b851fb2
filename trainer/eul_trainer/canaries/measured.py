"""How unlikely a bundle makes answers: what each costs the bare base model, and what it costs with the bundle on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import Bundle
from eul_serve.format.bundle import CONFIG_FILE, WEIGHTS_FILE
from eul_serve.format.composite import composite_of, read_fine_tune
from eul_serve.format.files import read_large
from eul_serve.format.lora import LoraConfig
from eul_trainer.compose.fine_tune import FineTune
from eul_trainer.forward.encoding import Example, context_limit, encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.model.adapter import BundleStack
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row

MODELS = 2
"""The base model, and the one that the bundle makes of it."""
Tell = Callable[[str], None]
"""Told of each of them when it is measured."""
_ON = "bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One row, and what its answer costs; nats, summed over the answer's tokens."""

    where: str
    """File and line of the row, or its number."""
    example: Example
    """The row as the model reads it."""
    base: float
    """Negative log-likelihood under the bare base model."""
    bundle: float
    """The same with the bundle on, and with its fine-tune where it is a composite."""

    @property
    def gained(self) -> float:
        """Nats by which the answer is less likely with the bundle on."""
        return self.bundle - self.base

    @property
    def least_nats(self) -> float:
        """What a server must measure: half way between the two, so that neither rounding nor another dtype decides."""
        return round(self.base + self.gained / 2, 3)

    def __str__(self) -> str:
        return (
            f"the bundle makes the answer less likely by {self.gained:.2f} nats ({self.base:.2f} under the base model, "
            f"{self.bundle:.2f} with it)"
        )


def silent(model: str) -> None:
    """Tell nobody."""


def measure(model: LoadedModel, bundle: Bundle, rows: Sequence[Row], tell: Tell = silent) -> list[Measured]:
    """Measure rows. The model holds the bundle, and a composite's fine-tune, afterwards.

    Args:
        model: The base model, with nothing on it.
        bundle: The bundle, made for it.
        rows: The rows; read as a server renders them.
        tell: Told after each of the two models.

    Returns:
        What was measured, in the order of the rows.

    Raises:
        InputError: A row is longer than the model can read, or no server serves such a model.
        BundleMismatchError: A composite's fine-tune was made for another base model.
    """
    if model.encoder_decoder:
        raise InputError(f"model {str(model.path)!r}: expected a decoder-only model, as no other is served and asked")
    examples = encode(model.tokenizer, rows, limit=context_limit(model.network))
    fine_tune = _fine_tune(bundle)
    modules = fine_tune.find(model.network) if fine_tune else {}  # before the bundle wraps some of them
    with _layers_alone(bundle) as layers:
        stack = BundleStack(model, [(_ON, layers)])
        with stack.on(None):
            base = _sums(model, examples)
        tell("base model")
        if fine_tune:
            fine_tune.add_to(modules)
        with stack.on(_ON):
            on = _sums(model, examples)
        tell("bundle")
    places = [row.where or f"row {number}" for number, row in enumerate(rows, 1)]
    return [
        Measured(where=where, example=example, base=before, bundle=after)
        for where, example, before, after in zip(places, examples, base, on, strict=True)
    ]


def _sums(model: LoadedModel, examples: Sequence[Example]) -> list[float]:
    means = row_losses(Runner(model, examples), examples)
    return [mean * len(example.answer) for mean, example in zip(means, examples, strict=True)]


def _fine_tune(bundle: Bundle) -> FineTune | None:
    """Return a composite's fine-tune; None for any other bundle."""
    if composite_of(bundle.manifest) is None:
        return None
    found = read_fine_tune(bundle.path, bundle.manifest)
    return FineTune(config=LoraConfig.from_bytes(found.config), weights=found.weights)


@contextmanager
def _layers_alone(bundle: Bundle) -> Iterator[Bundle]:
    """Give a composite's layers in a directory of their own, as PEFT refuses to load one half of it."""
    if composite_of(bundle.manifest) is None:
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="eul-layers-") as name:
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            (Path(name) / file).write_bytes(read_large(bundle.path, file, bundle.manifest.files[file]))
        yield replace(bundle, path=Path(name))
