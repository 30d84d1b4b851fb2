"""A valid bundle of a chosen size, written piece by piece, so that its size is not needed in memory."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eul_serve.format import (
    BaseModel,
    Bundle,
    BundleConfig,
    FileEntry,
    ForgottenRequest,
    Manifest,
    describe_files,
    read_bundle,
)
from eul_serve.format.bundle import CARD_FILE, CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE

LAYERS, WIDTH = 32, 4096
"""Shape of a model of 8 billion parameters; the rank makes the size."""
PIECE = 1 << 20
"""Values that are drawn at once."""


def make_bundle(path: Path, size: int, seed: int) -> Bundle:
    """Write a bundle of random weights whose size is the next that a whole rank has.

    Args:
        path: The directory to make.
        size: Bytes of the weights, roughly.
        seed: Of the weights.

    Returns:
        The bundle, read back with every check.
    """
    rank = max(1, round(size / (4 * LAYERS * (2 * WIDTH + 1))))
    base = "sha256:" + "b" * 64
    files = {CONFIG_FILE: BundleConfig(rank=rank, base_fingerprint=base).to_bytes(), CARD_FILE: b"# Random weights\n"}
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    manifest = Manifest(
        base=BaseModel(
            fingerprint=base, architecture="LlamaForCausalLM", tokenizer="sha256:" + "c" * 64, chat_template=None
        ),
        requests=(ForgottenRequest(id="r1", data="sha256:" + "d" * 64, units=None),),
        files={**describe_files(files), WEIGHTS_FILE: _write(path / WEIGHTS_FILE, _pieces(rank, seed))},
    )
    (path / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    return read_bundle(path)


def _pieces(rank: int, seed: int) -> Iterator[bytes]:
    """Yield a safetensors file: length and header, then the values of every tensor."""
    random = np.random.default_rng(seed)
    shapes = _shapes(rank)
    header, at = dict[str, Any](), 0
    for name, shape in shapes.items():
        end = at + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    yield struct.pack("<Q", len(text)) + text
    left = at // 4
    while left:
        values = min(left, PIECE)
        yield random.random(values, dtype=np.float32).tobytes()
        left -= values


def _shapes(rank: int) -> dict[str, tuple[int, ...]]:
    parts = {"eul_down.bias": (rank,), "eul_down.weight": (rank, WIDTH), "eul_up.weight": (WIDTH, rank)}
    layers = [f"base_model.model.model.layers.{number}.mlp" for number in range(LAYERS)]
    return {f"{layer}.{part}": shape for layer in layers for part, shape in parts.items()}


def _write(path: Path, pieces: Iterator[bytes]) -> FileEntry:
    state, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for data in pieces:
            state.update(data)
            size += file.write(data)
    return FileEntry(sha256=f"sha256:{state.hexdigest()}", size=size)
