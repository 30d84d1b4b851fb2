"""Whether stored statistics fit the bundle that they lie beside."""

from __future__ import annotations

import torch

from eul_serve.errors import BundleFormatError
from eul_serve.format import Bundle
from eul_serve.format.bundle import STATISTICS_FILE
from eul_trainer.fusion.store import Entry, Store, read_store


def checked_store(bundle: Bundle) -> Store | None:
    """Read a bundle's `fusion.safetensors` and check every shape and value.

    Args:
        bundle: The bundle.

    Returns:
        The contents, or None where the file is not there.

    Raises:
        BundleFormatError: The file does not fit the bundle.
    """
    store = read_store(bundle)
    if store is not None:
        check_store(store, bundle)
    return store


def check_store(store: Store, bundle: Bundle) -> None:
    """Check that every tensor has the shape that the bundle's modules give it, and finite values."""
    ranks = [
        len(next(iter(entry.layers.values())).down) if entry.layers else bundle.config.rank for entry in store.entries
    ]
    for module, width in bundle.widths.items():
        for index, (entry, rank) in enumerate(zip(store.entries, ranks, strict=True)):
            for part, (tensor, shape) in _parts(entry, module, width, rank, bundle.config.hidden_bias).items():
                _check_tensor(f"{index}.{module}.{part}", tensor, shape)
        if store.retain:
            _check_tensor(f"retain.{module}", store.retain.get(module), (sum(ranks), sum(ranks)))


def _parts(
    entry: Entry, module: str, width: int, rank: int, bias: bool
) -> dict[str, tuple[torch.Tensor | None, tuple[int, ...]]]:
    """Return what is stored of one member's module, and the shapes that are due."""
    found: dict[str, tuple[torch.Tensor | None, tuple[int, ...]]] = {}
    if entry.layers:
        layer = entry.layers.get(module)
        found = {
            "down": (layer.down if layer else None, (rank, width)),
            "up": (layer.up if layer else None, (width, rank)),
        }
        if bias:
            found["bias"] = (layer.bias if layer else None, (rank,))
    if entry.statistics.moments:
        moments = entry.statistics.moments.get(module)
        found["inputs"] = (moments.inputs if moments else None, (width + 1, width + 1))
        found["units"] = (moments.units if moments else None, (rank, rank))
    return found


def _check_tensor(name: str, tensor: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is None or tensor.shape != shape or tensor.dtype != torch.float32 or not tensor.isfinite().all():
        found = "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
        raise BundleFormatError(
            f"file {STATISTICS_FILE!r}: tensor {name!r}: expected finite float32 of shape {shape}, found {found}"
        )
