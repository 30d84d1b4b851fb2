"""A bundle and a model directory written by hand, without torch and without the code under test where it can be."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eul_serve.format import BaseModel, BundleConfig, ForgottenRequest, Manifest, describe_files

FINGERPRINT = "sha256:" + 64 * "a"
Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]
Pack = Callable[[Tensors], bytes]
Contents = Callable[..., dict[str, bytes]]
Sign = Callable[[Mapping[str, bytes]], dict[str, bytes]]


def pack_tensors(tensors: Tensors) -> bytes:
    """Return safetensors bytes for (dtype, shape, data) by name."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def bundle_contents(
    rank: int = 2, widths: tuple[int, ...] = (3, 3), dtype: str = "F32", hidden_bias: bool = True, seed: int = 0
) -> dict[str, bytes]:
    """Return the three published files of a valid bundle with one layer per width."""
    generator = np.random.default_rng(seed)
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for block, width in enumerate(widths):
        module = f"base_model.model.model.layers.{block}.mlp"
        shapes = {"eul_down.weight": (rank, width), "eul_down.bias": (rank,), "eul_up.weight": (width, rank)}
        for part, shape in shapes.items():
            if part != "eul_down.bias" or hidden_bias:
                values = generator.standard_normal(shape).astype("<f4")
                tensors[f"{module}.{part}"] = (dtype, shape, as_dtype(values, dtype))
    config = BundleConfig(rank=rank, base_fingerprint=FINGERPRINT, hidden_bias=hidden_bias)
    return {
        "adapter_config.json": config.to_bytes(),
        "adapter_model.safetensors": pack_tensors(tensors),
        "README.md": b"A card.\n",
    }


def as_dtype(values: np.ndarray, dtype: str) -> bytes:
    """Return float32 values as bytes of F32, F16, or BF16 (cut off, not rounded)."""
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    if dtype == "BF16":
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.tobytes()


def make_manifest(files: Mapping[str, bytes], **settings: Any) -> Manifest:
    """Return a manifest whose digests cover the files."""
    base = BaseModel(
        fingerprint=FINGERPRINT, architecture="LlamaForCausalLM", tokenizer="sha256:" + 64 * "b", chat_template=None
    )
    request = ForgottenRequest(id="r1", data="sha256:" + 64 * "c", units=(0, 2))
    return Manifest(**{"base": base, "requests": (request,), "files": describe_files(files), **settings})


@pytest.fixture(scope="session")
def pack() -> Pack:
    """Writer of safetensors bytes."""
    return pack_tensors


@pytest.fixture(scope="session")
def contents() -> Contents:
    """Factory of the published files of a valid bundle."""
    return bundle_contents


@pytest.fixture(scope="session")
def manifest_of() -> Callable[..., Manifest]:
    """Factory of manifests for files."""
    return make_manifest


@pytest.fixture(scope="session")
def sign() -> Sign:
    """Adds to files a manifest whose digests fit, so that only what is inside them can be at fault."""

    def signed(files: Mapping[str, bytes]) -> dict[str, bytes]:
        return {**files, "manifest.json": make_manifest(files).to_bytes()}

    return signed


@pytest.fixture
def bundle_dir(tmp_path: Path, contents: Contents, sign: Sign) -> Path:
    """A valid bundle on disk."""
    path = tmp_path / "bundle"
    path.mkdir()
    for name, data in sign(contents()).items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def model_dir(tmp_path: Path, pack: Pack) -> Path:
    """A directory that has all that the fingerprint reads of a model."""
    path = tmp_path / "model"
    path.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2, "torch_dtype": "float32"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(
        pack({"a": ("F32", (2,), bytes(8)), "b": ("I64", (1,), b"\x01" + bytes(7)), "c": ("F32", (0,), b"")})
    )
    return path
