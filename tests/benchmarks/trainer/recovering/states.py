"""What an attacker can compute of any row: the states that layers read, and the hidden units of fresh layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.runner import Runner
from eul_trainer.fusion.hooks import attached
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row

SPREAD = 0.02
"""Deviation of a fresh D's values."""


@dataclass(frozen=True, slots=True)
class States:
    """Answer tokens of some rows, T of them."""

    inputs: list[torch.Tensor]  # by looked-at module: (T, d + 1), a 1 appended, as in a stored Gram
    units: list[torch.Tensor]  # by module: (T, r)
    rows: torch.Tensor  # (T,) row of each token

    def of(self, tokens: torch.Tensor) -> States:
        """Return some of the tokens."""
        return States([x[tokens] for x in self.inputs], [x[tokens] for x in self.units], self.rows[tokens])


@torch.no_grad()
def read_states(model: LoadedModel, rows: Sequence[Row], looked_at: Sequence[int], rank: int) -> States:
    """Run rows through the base model.

    Args:
        model: The model.
        rows: The rows.
        looked_at: Blocks whose inputs are kept whole.
        rank: Hidden units of the fresh layers.
    """
    examples = encode(model.tokenizer, rows, limit=context_limit(model.network))
    runner = Runner(model, examples)
    paths = [path for path, _ in model.network.named_modules() if path.endswith(model.targets)]
    width = runner.width
    downs = [SPREAD * torch.randn(rank, width, generator=torch.Generator().manual_seed(n)) for n in range(len(paths))]
    inputs: list[list[torch.Tensor]] = [[] for _ in looked_at]
    units: list[list[torch.Tensor]] = [[] for _ in paths]
    owners = []
    for first in range(0, len(examples), 10):
        seen: dict[str, torch.Tensor] = {}
        batch = runner.batch(examples[first : first + 10])
        with attached(model.network, {path: _keep(seen, path) for path in paths}):
            runner.hidden(batch)
        for place, path in enumerate(paths):
            y = seen[path].flatten(0, 1)[batch.positions].float()
            units[place].append((y @ downs[place].T).relu())
            if place in looked_at:
                inputs[looked_at.index(place)].append(torch.cat([y, torch.ones_like(y[:, :1])], dim=1))
        owners.append(batch.rows + first)
    return States([torch.cat(x) for x in inputs], [torch.cat(x) for x in units], torch.cat(owners))


def _keep(seen: dict[str, torch.Tensor], path: str):  # noqa: ANN202  # a hook
    def look(output: torch.Tensor) -> torch.Tensor:
        seen[path] = output
        return output

    return look
