"""A few gradient steps on retained rows after a fusion, held to what was solved by an anchor that needs no forget data.

    loss = mean KL(base || bundle) over retained answer tokens
         + mu sum over blocks of tr((U - U_c) F (U - U_c)^T) / tr(U_c F U_c^T)

U_c is the solved up-projection, F the members' stored unit Grams: the anchor is the change of the layers' output on
forgotten answers, as far as those Grams know it. Only U moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from eul_trainer.fusion.gated import Stack, placed, units_of
from eul_trainer.fusion.hooks import Function, attached
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.objectives.terms import divergence

ROWS = 16
"""Retained rows per step."""


def heal(
    retained: Retained,
    layers: Mapping[str, Stack],
    forget: Mapping[str, torch.Tensor],
    settings: FuseSettings,
) -> dict[str, Stack]:
    """Train U on retained rows for a few steps.

    Args:
        retained: The rows and the model.
        layers: The solved layers by module path.
        forget: F by module path, (n, n).
        settings: Its steps, rate, anchor and seed are read.

    Returns:
        The layers with another U.
    """
    device = retained.model.device
    ups = {path: layer.up.detach().clone().to(device).requires_grad_() for path, layer in layers.items()}
    solved = {path: up.detach().clone() for path, up in ups.items()}
    grams = {path: gram.to(device) for path, gram in forget.items()}
    functions = {path: _function(placed(layer, device), ups[path]) for path, layer in layers.items()}
    optimizer = torch.optim.Adam(ups.values(), lr=settings.heal_rate, betas=(0.9, 0.99))
    draw = torch.Generator().manual_seed(settings.seed)
    for step in range(settings.heal_steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.heal_rate * (1 - step / settings.heal_steps)
        chosen = torch.randperm(len(retained.examples), generator=draw)[:ROWS].tolist()
        loss = _divergence(retained, functions, chosen)
        held = sum((drift(ups[path], solved[path], grams[path]) for path in ups), torch.zeros((), device=device))
        optimizer.zero_grad()
        (loss + settings.heal_anchor * held).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        optimizer.step()
    return {path: replace(layer, up=ups[path].detach().to(layer.up)) for path, layer in layers.items()}


def drift(up: torch.Tensor, solved: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Return tr((U - U_c) F (U - U_c)^T) / tr(U_c F U_c^T), a scalar; 0 where U_c has no energy."""
    move = up - solved
    return (move @ gram * move).sum() / (solved @ gram * solved).sum().clamp_min(1e-30)


def _divergence(retained: Retained, functions: Mapping[str, Function], chosen: list[int]) -> torch.Tensor:
    runner = retained.runner
    batch = runner.batch([retained.examples[index] for index in chosen])
    with torch.no_grad():
        base = runner.logits(runner.hidden(batch))
    with attached(retained.model.network, functions):
        mine = runner.logits(runner.hidden(batch))
    return divergence(base, mine).mean()


def _function(layer: Stack, up: torch.Tensor) -> Function:
    def add(output: torch.Tensor) -> torch.Tensor:
        units = units_of(layer, output.float())
        return (output + torch.nn.functional.linear(units, up)).to(output.dtype)

    return add
