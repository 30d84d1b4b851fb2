"""Checks of a bundle's weights against its config: names, shapes, dtypes, finite values. Needs no torch."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from eul_serve.errors import BundleFormatError
from eul_serve.format.config import BundleConfig
from eul_serve.format.header import Header, TensorEntry
from eul_serve.format.names import PARTS, Part, TensorName

MAX_WIDTH = 1 << 17
_CHUNK_BYTES = 4 << 20
_EXPONENT = {"BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00), "F32": ("<u4", 0x7F800000)}
"""Per dtype: an unsigned view, and the bits that are all set in infinities and NaNs alone."""


def check_tensors(header: Header, config: BundleConfig) -> dict[str, int]:
    """Check names and shapes; return the width d of every wrapped module, by its path.

    Args:
        header: Header of `adapter_model.safetensors`.
        config: The bundle's config.

    Returns:
        Width d by module path.

    Raises:
        BundleFormatError: A tensor is missing, unknown, of another shape, or of another dtype than the rest.
    """
    if header.metadata not in ({}, {"format": "pt"}):
        # Free text could carry what the bundle is there to forget.
        raise BundleFormatError(
            f"adapter_model.safetensors: __metadata__: expected only format=pt, found {header.metadata!r:.100}"
        )
    layers: dict[str, dict[Part, TensorEntry]] = {}
    for text, entry in header.tensors.items():
        name = TensorName.parse(text)
        layers.setdefault(name.module, {})[name.part] = entry
    if not layers:
        raise BundleFormatError("adapter_model.safetensors: expected at least one layer, found none")
    dtypes = {entry.dtype for entry in header.tensors.values()}
    if len(dtypes) > 1:
        raise BundleFormatError(f"adapter_model.safetensors: expected one dtype, found {', '.join(sorted(dtypes))}")
    return {module: _check_layer(module, parts, config) for module, parts in sorted(layers.items())}


def _check_layer(module: str, parts: dict[Part, TensorEntry], config: BundleConfig) -> int:
    if not any(f".{module}".endswith(f".{target}") for target in config.target_modules):
        raise BundleFormatError(
            f"module {module!r}: expected a path that ends in one of {', '.join(config.target_modules)}"
        )
    wanted = PARTS if config.hidden_bias else tuple(part for part in PARTS if part != "eul_down.bias")
    for part in PARTS:
        if (part in wanted) != (part in parts):
            expected, found = ("none", "one") if part in parts else ("one", "none")
            raise BundleFormatError(
                f"tensor {str(TensorName(module, part))!r}: expected {expected} with hidden_bias={config.hidden_bias}, "
                f"found {found}"
            )
    down = parts["eul_down.weight"].shape
    width = down[1] if len(down) == 2 else 0
    if not 1 <= width <= MAX_WIDTH:
        raise BundleFormatError(
            f"tensor {str(TensorName(module, 'eul_down.weight'))!r}: shape: expected ({config.rank}, d) with "
            f"d from 1 to {MAX_WIDTH}, found {down}"
        )
    shapes = {
        "eul_down.weight": (config.rank, width),
        "eul_down.bias": (config.rank,),
        "eul_up.weight": (width, config.rank),
    }
    for part in wanted:
        if parts[part].shape != shapes[part]:
            raise BundleFormatError(
                f"tensor {str(TensorName(module, part))!r}: shape: expected {shapes[part]}, found {parts[part].shape}"
            )
    return width


def check_finite(file: BinaryIO, header: Header) -> None:
    """Check that no value of an open safetensors file is infinite or NaN, reading it in small pieces.

    Args:
        file: The file, or its bytes in memory.
        header: Its header.

    Raises:
        BundleFormatError: Names the first tensor with such a value.
    """
    for name, entry in header.tensors.items():
        view, exponent = _EXPONENT[entry.dtype]
        file.seek(entry.begin)
        left = entry.end - entry.begin
        while left:
            size = min(left, _CHUNK_BYTES)
            data = file.read(size)
            if len(data) != size:
                raise BundleFormatError(f"tensor {name!r}: the file ended early; it was changed while it was read")
            left -= size
            bits = np.frombuffer(data, dtype=view)
            if np.any((bits & exponent) == exponent):
                raise BundleFormatError(f"tensor {name!r}: expected finite values, found infinity or NaN")
