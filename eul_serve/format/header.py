"""The header of a safetensors file, read and checked before a byte of weights is touched.

The safetensors library maps the whole file first; we read at most `MAX_HEADER_BYTES`, so a hostile header costs little.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from eul_serve.errors import BundleFormatError
from eul_serve.format.config import check_keys, parse_object
from eul_serve.format.digest import reading

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 100_000
ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
"""Bytes per element of the dtypes that a bundle may hold."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as the header describes it."""

    dtype: str
    """safetensors' name of the dtype, e.g. F32."""
    shape: tuple[int, ...]
    """Sizes of the dimensions."""
    begin: int
    """First byte, counted from the start of the file."""
    end: int
    """One past the last byte, counted from the start of the file."""


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header."""

    tensors: dict[str, TensorEntry]
    """Tensors by name, in the order of their bytes."""
    metadata: dict[str, str]
    """The file's `__metadata__`; never trusted."""


def read_header(path: Path, dtypes: Mapping[str, int] = ITEM_BYTES) -> Header:
    """Read and check the header of a safetensors file.

    Args:
        path: The file; links are refused.
        dtypes: Allowed dtypes with their bytes per element; those of a bundle by default.

    Returns:
        The header, with every tensor's bytes known to lie inside the file, without gap or overlap.

    Raises:
        InputError: The file is missing, a link, or cannot be read.
        BundleFormatError: The file is not safetensors, is truncated, or breaks a rule of the format.
    """
    with reading(path) as file:
        return parse_header(file, path.name, dtypes)


def parse_header(file: BinaryIO, name: str, dtypes: Mapping[str, int] = ITEM_BYTES) -> Header:
    """Read and check the header of an open safetensors file.

    Args:
        file: The file, or its bytes in memory.
        name: Its name, for messages.
        dtypes: Allowed dtypes with their bytes per element; those of a bundle by default.

    Returns:
        The header, with every tensor's bytes known to lie inside the file, without gap or overlap.

    Raises:
        BundleFormatError: The file is not safetensors, is truncated, or breaks a rule of the format.
    """
    size = file.seek(0, os.SEEK_END)
    found, start = _read_json(file, name, size)
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BundleFormatError(f"{name}: __metadata__: expected text by text, found {metadata!r:.100}")
    if len(found) > MAX_TENSORS:
        raise BundleFormatError(f"{name}: expected at most {MAX_TENSORS} tensors, found {len(found)}")
    entries = {tensor: _entry(tensor, raw, start, dtypes) for tensor, raw in found.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_layout(ordered, start, size, name)
    return Header(ordered, metadata)


def _read_json(file: BinaryIO, name: str, size: int) -> tuple[dict[str, Any], int]:
    file.seek(0)
    prefix = file.read(8)
    if len(prefix) < 8:
        raise BundleFormatError(f"{name}: expected at least 8 bytes, found {size}; the file is truncated")
    (length,) = struct.unpack("<Q", prefix)
    most = min(MAX_HEADER_BYTES, size - 8)
    if not 2 <= length <= most:
        raise BundleFormatError(
            f"{name}: expected a header of 2 to {most} bytes, found {length}; "
            "the file is truncated or not safetensors (pickle files are never read)"
        )
    data = file.read(length)
    if not data.startswith(b"{"):
        raise BundleFormatError(f"{name} header: expected to start with '{{', found {data[:1]!r}")
    return parse_object(data, f"{name} header"), 8 + length


def _entry(name: str, raw: object, start: int, dtypes: Mapping[str, int]) -> TensorEntry:
    where = f"tensor {name[:200]!r}"
    if not isinstance(raw, dict):
        raise BundleFormatError(f"{where}: expected an object, found {type(raw).__name__}")
    check_keys(raw, {"dtype": str, "shape": list, "data_offsets": list}, where)
    if raw["dtype"] not in dtypes:
        raise BundleFormatError(f"{where}: dtype: expected one of {', '.join(dtypes)}, found {raw['dtype']!r:.40}")
    shape, offsets = raw["shape"], raw["data_offsets"]
    if len(shape) > 8 or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        raise BundleFormatError(f"{where}: shape: expected up to 8 sizes, found {shape!r:.100}")
    if len(offsets) != 2 or not all(type(n) is int and 0 <= n < 1 << 60 for n in offsets):
        raise BundleFormatError(f"{where}: data_offsets: expected [begin, end], found {offsets!r:.100}")
    expected = dtypes[raw["dtype"]]
    for size in shape:
        expected *= size
    if offsets[1] - offsets[0] != expected:
        raise BundleFormatError(f"{where}: expected {expected} bytes, found {offsets[1] - offsets[0]}")
    return TensorEntry(raw["dtype"], tuple(shape), start + offsets[0], start + offsets[1])


def _check_layout(entries: dict[str, TensorEntry], start: int, size: int, name: str) -> None:
    position = start
    for tensor, entry in entries.items():
        if entry.begin != position:
            raise BundleFormatError(
                f"tensor {tensor[:200]!r}: expected its data at byte {position - start}, found {entry.begin - start}"
            )
        position = entry.end
    if position != size:
        raise BundleFormatError(
            f"{name}: expected {position} bytes, found {size}; truncated or with bytes behind the data"
        )
