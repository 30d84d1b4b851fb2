"""Layers side by side, each request behind a gate per block and token.

    y + sum_i g_i(y) U_i act(D_i y + b_i),    g_i = clamp(1/2 + k (w_i . y + c_i), 0, 1)

w_i and c_i were made when the layer was trained (gating.py) and need nothing of the other requests: so adding or
revoking a request leaves the others' layers and gates as they are, bit for bit. With k from 1 on the gate is open at
the mean of the request's own answers and shut at that of retained rows. The bundle format keeps names free for gates
and its version 1 has none, so a gated fusion is measured and not written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_serve.errors import InputError
from eul_trainer.fusion.concat import concat
from eul_trainer.fusion.correct import correct
from eul_trainer.fusion.gated import GatedLayer
from eul_trainer.fusion.job import Fused, Job, moments_of
from eul_trainer.fusion.members import Member


def fuse(job: Job) -> Fused:
    """Put layers side by side behind gates, and correct them where a retain set is given; see correct.py."""
    return correct(job, gated(job.members, job.settings.gate_slope))


def gated(members: Sequence[Member], slope: float) -> dict[str, GatedLayer]:
    """Put layers side by side behind their gates.

    Args:
        members: The layers, with their gates.
        slope: k.

    Returns:
        The gated layers by module path.
    """
    ranks = tuple(member.rank for member in members)
    found = {}
    for module, layer in concat(members).items():
        gates = torch.stack([_gate(member, module) for member in members]).double()
        found[module] = GatedLayer(
            down=layer.down,
            up=layer.up,
            bias=layer.bias,
            activation=layer.activation,
            weight=(slope * gates[:, :-1]).to(layer.down.dtype).contiguous(),
            offset=(0.5 + slope * gates[:, -1]).to(layer.down.dtype),
            ranks=ranks,
        )
    return found


def _gate(member: Member, module: str) -> torch.Tensor:
    found = moments_of(member).moments[module].gate
    if found is None:
        raise InputError(
            f"request {member.request.id!r}: its statistics have no gate; train it again with --statistics full, or "
            "use --method concat"
        )
    return found
