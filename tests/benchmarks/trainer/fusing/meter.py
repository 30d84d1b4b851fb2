"""Losses of one model in memory, bare or with a fused layer on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from common.output import mean

from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.fusion.hooks import attached
from eul_trainer.model.load import LoadedModel
from fusing.inputs import Inputs

Functions = Mapping[str, Callable[[torch.Tensor], torch.Tensor]]
"""What stands behind each feed-forward module, by its path: from its output to the changed output."""


class Meter:
    """Rows encoded once, measured under one fused layer after another."""

    def __init__(self, model: LoadedModel, inputs: Inputs) -> None:
        self.model = model
        limit = context_limit(model.network)
        self.requests = {name: encode(model.tokenizer, rows, limit=limit) for name, rows in inputs.requests.items()}
        self.held = {name: encode(model.tokenizer, rows, limit=limit) for name, rows in inputs.held.items()}
        # One runner for all: its shared first tokens, the chat template's, are the same in every measurement.
        self.runner = Runner(model, [row for rows in (*self.requests.values(), *self.held.values()) for row in rows])

    def forget_losses(self, functions: Functions, names: Iterable[str]) -> dict[str, float]:
        """Return the mean answer loss of each request's rows, nats."""
        chosen = list(names)
        with attached(self.model.network, functions):
            losses = row_losses(self.runner, [row for name in chosen for row in self.requests[name]])
        found, first = {}, 0
        for name in chosen:
            count = len(self.requests[name])
            found[name] = mean(losses[first : first + count])
            first += count
        return found

    def held_losses(self, functions: Functions) -> dict[str, list[float]]:
        """Return the answer loss of every held-out row by group, nats."""
        with attached(self.model.network, functions):
            return {name: row_losses(self.runner, rows) for name, rows in self.held.items()}
