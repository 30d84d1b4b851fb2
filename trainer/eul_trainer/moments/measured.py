"""Mean second moments of a layer's hidden units and of its input, measured over rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from eul_serve.peft import observe
from eul_serve.peft.layer import Observer
from eul_trainer.forward.batches import Batch, by_length
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.runner import Runner
from eul_trainer.model.adapter import Taps
from eul_trainer.model.load import Network


@dataclass(frozen=True, slots=True)
class Measured:
    """Mean second moments of one layer over tokens; float32 on the CPU, sums taken in float64."""

    units: torch.Tensor  # (r, r) of act(D y + b)
    seen_inputs: torch.Tensor | None = (
        None  # (d + 1, d + 1) of the layer's input with a 1 appended; None: not asked for
    )
    mean: torch.Tensor | None = None  # (d,) of the layer's input; None: not asked for
    variance: torch.Tensor | None = None  # (d,) of each of its numbers

    @property
    def inputs(self) -> torch.Tensor:
        """The inputs' moment, with a row and column for the mean.

        Raises:
            ValueError: It was not measured.
        """
        if self.seen_inputs is None:
            raise ValueError("moments of the inputs were not measured; ask for them by inputs=True")
        return self.seen_inputs


def places(batch: Batch, module: str, whole_rows: bool) -> torch.Tensor:
    """Return the flattened positions of a module's output that count.

    Args:
        batch: The batch.
        module: Path of the module; an encoder's modules see no answer, so there whole rows always count.
        whole_rows: Count every token but the shared first ones, and not those alone that predict answer tokens.

    Returns:
        Indices into the flattened tokens.
    """
    in_encoder = batch.encoder_tokens is not None and module.startswith("encoder.")
    return batch.seen_by(module).index if whole_rows or in_encoder else batch.positions


Watch = Callable[[Observer], AbstractContextManager[None]]
"""Gives a context in which an observer sees every layer's tensors."""


def second_moments(
    runner: Runner,
    peft: Network,
    examples: Sequence[Example],
    *,
    inputs: bool,
    spread: bool = False,
    whole_rows: bool = False,
) -> dict[str, Measured]:
    """Return the mean second moments of the layers of a PEFT model; the rest as `moments_seen`."""
    return moments_seen(
        runner,
        lambda observer: observe(peft, observer),
        examples,
        inputs=inputs,
        spread=spread,
        whole_rows=whole_rows,
    )


@torch.no_grad()
def moments_seen(
    runner: Runner,
    watch: Watch,
    examples: Sequence[Example],
    *,
    inputs: bool,
    spread: bool = False,
    whole_rows: bool = False,
    size: int = 24,
) -> dict[str, Measured]:
    """Return the mean second moments of every layer's hidden units, and of its input.

    Args:
        runner: The model and its batches.
        watch: Shows an observer what every layer computes.
        examples: The rows.
        inputs: Measure the inputs too, (d + 1)^2 numbers a layer: about as much work as the model itself.
        spread: Measure mean and variance of each number of the inputs too.
        whole_rows: Count every token of a row. First tokens that all rows share, such as a chat template's system turn,
            count in each row for the units, as they are served with each; not for the inputs, whose spread they would
            hide: the first token's state is often a hundred times as long as others.
        size: Rows per batch.

    Returns:
        The moments by module path.
    """
    units, seen = defaultdict[str, _Sum](_Sum), defaultdict[str, _Sum](_Sum)
    spreads = defaultdict[str, _Spread](_Spread)
    taps = Taps()
    for indices in by_length(examples, size):
        batch = runner.batch([examples[index] for index in indices])
        taps.clear()
        with watch(taps):
            runner.hidden(batch)
        for module, y, hidden, _ in taps.seen:
            chosen = places(batch, module, whole_rows)
            units[module].add(hidden, chosen)
            if whole_rows:
                units[module].add(hidden, batch.seen_by(module).first, times=len(indices))
            if spread:
                spreads[module].add(y, chosen)
            if inputs:
                seen[module].add(_with_one(y), chosen)
    return {
        module: Measured(
            found.mean(), seen[module].mean() if inputs else None, *(spreads[module].both() if spread else ())
        )
        for module, found in units.items()
    }


class _Sum:
    """A second moment in the making, float64."""

    def __init__(self) -> None:
        self._gram: torch.Tensor | float = 0.0
        self._count = 0

    def add(self, tensor: torch.Tensor, chosen: torch.Tensor, times: int = 1) -> None:
        """Add the chosen rows of a tensor (n, m, d), flattened, each so many times."""
        rows = tensor.flatten(0, 1)[chosen].double()
        self._gram = self._gram + times * (rows.T @ rows)
        self._count += times * len(chosen)

    def mean(self) -> torch.Tensor:
        """Return the mean, float32 on the CPU."""
        return (torch.as_tensor(self._gram) / self._count).float().cpu()


class _Spread:
    """Mean and variance of each number in the making, float64."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._squares: torch.Tensor | float = 0.0
        self._count = 0

    def add(self, tensor: torch.Tensor, chosen: torch.Tensor) -> None:
        """Add the chosen rows of a tensor (n, m, d), flattened."""
        rows = tensor.flatten(0, 1)[chosen].double()
        self._sum, self._squares = self._sum + rows.sum(0), self._squares + rows.square().sum(0)
        self._count += len(chosen)

    def both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and variance, each (d,), float32 on the CPU."""
        mean = torch.as_tensor(self._sum) / self._count
        variance = (torch.as_tensor(self._squares) / self._count - mean.square()).clamp_min(0)
        return mean.float().cpu(), variance.float().cpu()


def _with_one(y: torch.Tensor) -> torch.Tensor:
    return torch.cat([y, torch.ones_like(y[..., :1])], dim=-1)
