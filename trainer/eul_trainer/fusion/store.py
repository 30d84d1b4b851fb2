"""`fusion.safetensors`: what a later fusion needs, beside a bundle and published only when asked for.

Metadata `fusion` is JSON: {"version": 3, "members": [{"id", "data", "revision", "tokens", "error", "init_seed",
"on_top_of"}...]}; a trained layer has one member without a revision. Tensors, for member i and each module path M:

    i.M.units, i.M.inputs            mean second moments on the member's forgotten answers, packed (gram.py)
    i.M.inputs.vectors, .values,     the second of them in its low-rank form
      .remainder
    i.M.mean, i.M.variance           of each number of the inputs; version 2 has no variance
    i.M.gate                         w and c of the member's gate (gating.py)
    i.M.down, i.M.up, i.M.bias       the member's own layer, in a fused bundle alone
    retain.M.units, retain.M.inputs  mean second moments of all members' units, and of the inputs, on retained rows
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch

from eul_serve.format import ForgottenRequest
from eul_serve.format.weights import LayerWeights
from eul_trainer.moments.gram import PackedGram
from eul_trainer.moments.statistics import LayerStatistics, Moments, block_width

VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is stored of one member."""

    request: ForgottenRequest
    """The request, without units."""
    revision: str | None
    """Revision of the layer as it was trained; None in the file of that layer itself."""
    statistics: LayerStatistics
    """Its moments."""
    layers: dict[str, LayerWeights] = field(default_factory=dict)
    """Its own weights; empty in the file of a trained layer, whose weights lie beside it."""
    init_seed: int | None = None
    """Seed of its D; None where it is not known."""
    on_top_of: tuple[str, ...] = ()
    """Revisions of the layers that were on while it was trained."""

    def weights(self, activation: str) -> dict[str, LayerWeights]:
        """Return the weights with their activation."""
        return {
            module: LayerWeights(layer.down, layer.up, layer.bias, activation) for module, layer in self.layers.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainMoments:
    """Mean second moments of one module on retained rows, on the base model."""

    units: torch.Tensor  # (R, R) of all members' hidden units, in their order
    inputs: torch.Tensor | None = None  # (d + 1, d + 1) of the module's output with a 1 appended


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The contents of `fusion.safetensors`."""

    entries: Sequence[Entry]
    """The members in the order of their units."""
    retain: Mapping[str, RetainMoments] = field(default_factory=dict)
    """Moments on retained rows by module; empty without a retain set."""


def dump_store(store: Store) -> bytes:
    """Return the bytes of `fusion.safetensors`."""
    tensors: dict[str, torch.Tensor] = {}
    for index, entry in enumerate(store.entries):
        for module, moments in entry.statistics.moments.items():
            tensors |= _moments(f"{index}.{module}", moments, block_width(entry.statistics.tokens))
        for module, layer in entry.layers.items():
            tensors |= {f"{index}.{module}.down": layer.down, f"{index}.{module}.up": layer.up}
            if layer.bias is not None:
                tensors[f"{index}.{module}.bias"] = layer.bias
    for module, found in store.retain.items():
        tensors[f"retain.{module}.units"] = PackedGram.of(found.units).values
        if found.inputs is not None:
            tensors[f"retain.{module}.inputs"] = PackedGram.of(found.inputs).values
    members = [_facts(entry) for entry in store.entries]
    facts = json.dumps({"members": members, "version": VERSION}, sort_keys=True, separators=(",", ":"))
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    data: bytes = safetensors.torch.save(plain, metadata={"fusion": facts})
    return data


def _moments(name: str, moments: Moments, width: int) -> dict[str, torch.Tensor]:
    tensors = {f"{name}.units": PackedGram.of(moments.units, width).values}
    if moments.gate is not None:
        tensors[f"{name}.gate"] = moments.gate
    for part, tensor in (("mean", moments.mean), ("variance", moments.variance)):
        if tensor is not None:
            tensors[f"{name}.{part}"] = tensor
    if moments.inputs is not None:
        tensors |= {f"{name}.inputs{end}": tensor for end, tensor in moments.inputs.parts().items()}
    return tensors


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.request.id,
        "data": entry.request.data,
        "revision": entry.revision,
        "tokens": entry.statistics.tokens,
        "error": entry.statistics.error,
        "init_seed": entry.init_seed,
        "on_top_of": list(entry.on_top_of),
    }
