"""A layer that was trained: what it tells by itself, and what its stored units tell beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from eul_serve.format.weights import LayerWeights
from eul_trainer.fit.run import fit
from eul_trainer.forward.encoding import Example, context_limit, encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.fusion.hooks import attached
from eul_trainer.model.load import load_model
from eul_trainer.records import Row
from eul_trainer.settings import FitSettings
from recovering.attack import RIDGES, Spectrum, auc, by_row, scores


class Layers:
    """Trained layers behind a base model's modules; remembers the hidden units of the last run."""

    def __init__(self, layers: Mapping[str, LayerWeights]) -> None:
        self.layers = layers
        self.units: dict[str, torch.Tensor] = {}

    def function(self, path: str) -> Any:
        layer = self.layers[path]
        bias = 0.0 if layer.bias is None else layer.bias

        def add(y: torch.Tensor) -> torch.Tensor:
            self.units[path] = (y.float() @ layer.down.T + bias).relu()
            return y + (self.units[path] @ layer.up.T).to(y.dtype)

        return add

    def on(self, network: Any) -> Any:
        return attached(network, {path: self.function(path) for path in self.layers})


@torch.no_grad()
def _units(runner: Runner, layers: Layers, examples: Sequence[Example]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return the hidden units at the answers' tokens by module, (T, r), and the row of each token."""
    batch = runner.batch(examples)
    with layers.on(runner.network):
        runner.hidden(batch)
    found = [layers.units[path].flatten(0, 1)[batch.positions] for path in layers.layers]
    return found, batch.rows


def attack_trained(
    model: str,
    inside: Sequence[Row],
    outside: Sequence[Row],
    retain: Sequence[Row],
    known: Sequence[Row],
    **settings: Any,
) -> dict[str, Any]:
    """Train one request and attack it.

    Args:
        model: Directory of the base model.
        inside: Rows of the request.
        outside: Rows of the same kind that are in nothing.
        retain: Rows to keep.
        known: Rows of the same kind that the attacker has.
        settings: Settings of the fit that differ from its defaults.
    """
    result = fit(load_model(model), inside, retain, FitSettings(**settings))
    base = load_model(model)
    sets = [encode(base.tokenizer, rows, limit=context_limit(base.network)) for rows in (inside, outside, known)]
    runner = Runner(base, [example for rows in sets for example in rows])
    layers = Layers({path: layer for path, layer in result.layers.items()})
    before = [torch.tensor(row_losses(runner, rows)) for rows in sets[:2]]
    with layers.on(base.network):
        after = [torch.tensor(row_losses(runner, rows)) for rows in sets[:2]]
    rises = [late - early for early, late in zip(before, after, strict=True)]
    units = [_units(runner, layers, rows) for rows in sets]
    stored = [Spectrum.of_matrix(result.statistics.moments[path].units) for path in layers.layers]
    theirs = [Spectrum.of(x, x.shape[1]) for x in units[2][0]]
    found = [by_row(scores(stored, theirs, x), rows) for x, rows in units[:2]]
    return {
        "tokens": result.statistics.tokens,
        "steps": result.steps,
        "forget_before": result.before,
        "forget_after": result.after,
        "auc_of_the_layer": auc(*rises),
        "rise_inside": rises[0].mean().item(),
        "rise_outside": rises[1].mean().item(),
        "auc_of_the_units": max(auc(found[0][ridge], found[1][ridge]) for ridge in range(len(RIDGES))),
    }
