"""`fusion.safetensors`: what a later fusion needs, beside a bundle and published only when asked for.

Metadata `fusion` is JSON: {"version": 1, "members": [{"id", "data", "revision", "tokens"}...]}; a trained layer has one
member without a revision. Tensors, for member i and each module path M:

    i.M.inputs, i.M.units            mean second moments on the member's forgotten answers (statistics.py)
    i.M.down, i.M.up, i.M.bias       the member's own layer, in a fused bundle alone
    retain.M                         mean second moment of all members' units on retained rows, where concat used it
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format import Bundle, ForgottenRequest, check_digest, check_name
from eul_serve.format.bundle import STATISTICS_FILE
from eul_serve.format.weights import LayerWeights
from eul_trainer.statistics import LayerStatistics, Moments

VERSION = 1
_FILE = f"file {STATISTICS_FILE!r}"


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

    def weights(self, activation: str) -> dict[str, LayerWeights]:
        """Return the weights with their activation."""
        return {
            module: LayerWeights(layer.down, layer.up, layer.bias, activation) for module, layer in self.layers.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The contents of `fusion.safetensors`."""

    entries: Sequence[Entry]
    """The members in the order of their units."""
    retain: dict[str, torch.Tensor] = field(default_factory=dict)
    """Mean second moments of all units on retained rows by module, (R, R); empty without a retain set."""


def dump_store(store: Store) -> bytes:
    """Return the bytes of `fusion.safetensors`."""
    tensors = {f"retain.{module}": gram for module, gram in store.retain.items()}
    members = []
    for index, entry in enumerate(store.entries):
        members.append(
            {
                "id": entry.request.id,
                "data": entry.request.data,
                "revision": entry.revision,
                "tokens": entry.statistics.tokens,
            }
        )
        for module, moments in entry.statistics.moments.items():
            tensors |= {f"{index}.{module}.inputs": moments.inputs, f"{index}.{module}.units": moments.units}
        for module, layer in entry.layers.items():
            tensors |= {f"{index}.{module}.down": layer.down, f"{index}.{module}.up": layer.up}
            if layer.bias is not None:
                tensors[f"{index}.{module}.bias"] = layer.bias
    facts = json.dumps({"members": members, "version": VERSION}, sort_keys=True, separators=(",", ":"))
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    data: bytes = safetensors.torch.save(plain, metadata={"fusion": facts})
    return data


def read_store(bundle: Bundle) -> Store | None:
    """Read a bundle's `fusion.safetensors`, whose digest `read_bundle` has checked.

    Args:
        bundle: The bundle.

    Returns:
        The contents, or None where the file is not there.

    Raises:
        BundleFormatError: The file is not what this version writes.
    """
    path = bundle.path / STATISTICS_FILE
    if not path.exists():
        return None
    if STATISTICS_FILE not in bundle.manifest.artifacts:
        raise BundleFormatError(f"{_FILE}: it is not in the manifest of {bundle.revision}; remove it")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["fusion"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        if facts["version"] != VERSION:
            raise BundleFormatError(f"{_FILE}: version: expected {VERSION}, found {facts['version']!r:.20}")
        entries = [_entry(index, raw, tensors) for index, raw in enumerate(facts["members"])]
    except (OSError, ValueError, KeyError, TypeError, InputError, safetensors.SafetensorError) as error:
        raise BundleFormatError(f"{_FILE}: expected the statistics of {bundle.revision}, found {error}") from error
    retain = {name[len("retain.") :]: gram for name, gram in tensors.items() if name.startswith("retain.")}
    store = Store(entries=entries, retain=retain)
    return store


def _entry(index: int, raw: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Entry:
    mine: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, rest = name.partition(".")
        if owner == str(index):
            module, _, part = rest.rpartition(".")
            mine.setdefault(module, {})[part] = tensor
    return Entry(
        request=ForgottenRequest(id=check_name(raw["id"], "request"), data=check_digest(raw["data"]), units=None),
        revision=None if raw["revision"] is None else check_digest(raw["revision"]),
        statistics=LayerStatistics(
            tokens=int(raw["tokens"]),
            moments={
                module: Moments(inputs=parts["inputs"], units=parts["units"])
                for module, parts in mine.items()
                if "units" in parts
            },
        ),
        layers={
            module: LayerWeights(parts["down"], parts["up"], parts.get("bias"))
            for module, parts in mine.items()
            if "down" in parts
        },
    )
