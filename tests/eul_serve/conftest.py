"""Small valid bundles made by hand, with neither torch nor safetensors, for tests of what handles files alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eul_serve.format import BaseModel, Bundle, BundleConfig, ForgottenRequest, Manifest, describe_files, write_bundle
from eul_serve.format.canaries import CANARIES_FILE, Canary, dump_canaries
from eul_serve.format.composite import fine_tune_digest
from eul_serve.format.lora import LoraConfig

PLAIN_BASE = "sha256:" + "b" * 64
PlainBundle = Callable[..., Bundle]


def plain_weights(rank: int, width: int, seed: int) -> bytes:
    """Return the bytes of `adapter_model.safetensors` for one layer."""
    shapes = {"eul_down.bias": (rank,), "eul_down.weight": (rank, width), "eul_up.weight": (width, rank)}
    return plain_tensors({f"base_model.model.model.layers.0.mlp.{part}": shape for part, shape in shapes.items()}, seed)


def plain_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int) -> bytes:
    """Return the bytes of a safetensors file of random values: length, header, data."""
    random = np.random.default_rng(seed)
    header: dict[str, Any] = {}
    data = b""
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def plain_composite(bundle: Bundle, path: Path, *, passed: bool = True) -> Bundle:
    """Write a composite of a bundle and a random fine-tune that nobody measured."""
    name = "base_model.model.model.layers.0.mlp.up_proj"
    fine_tune = {
        "lora_config.json": LoraConfig(rank=1, alpha=1.0, target_modules=("up_proj",)).to_bytes(),
        "lora_model.safetensors": plain_tensors({f"{name}.lora_A.weight": (1, 4), f"{name}.lora_B.weight": (4, 1)}, 0),
    }
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files} | fine_tune
    listed = describe_files(files)
    manifest = replace(
        bundle.manifest,
        files=listed,
        artifacts={},
        parents=(bundle.revision,),
        settings={"composite": {"bundle": bundle.revision, "fine_tune": fine_tune_digest(listed)}},
        metrics={"composite": {"passed": passed}},
    )
    return write_bundle(path, manifest, files)


def write_plain_bundle(
    path: Path,
    requests: Sequence[str] = ("r1",),
    *,
    rank: int = 2,
    width: int = 4,
    seed: int = 0,
    statistics: bool = False,
    base: str = PLAIN_BASE,
    canaries: Sequence[Canary] = (),
    **manifest: Any,
) -> Bundle:
    """Write a valid bundle directory of one layer, with made-up digests of the base model."""
    files = {
        "adapter_config.json": BundleConfig(rank=rank, base_fingerprint=base).to_bytes(),
        "adapter_model.safetensors": plain_weights(rank, width, seed),
        "README.md": b"# A card\n",
    }
    if canaries:
        files[CANARIES_FILE] = dump_canaries(canaries)
    artifacts = {"fusion.safetensors": plain_weights(1, 2, seed)} if statistics else {}
    described = Manifest(
        base=BaseModel(
            fingerprint=base, architecture="LlamaForCausalLM", tokenizer="sha256:" + "c" * 64, chat_template=None
        ),
        requests=tuple(ForgottenRequest(id=name, data="sha256:" + "d" * 64, units=None) for name in requests),
        files=describe_files(files),
        artifacts=describe_files(artifacts),
        **manifest,
    )
    return write_bundle(path, described, {**files, **artifacts})


@pytest.fixture(scope="session")
def plain_base() -> str:
    """The fingerprint that plain bundles name as their base model."""
    return PLAIN_BASE


@pytest.fixture(scope="session")
def plain_bundle(tmp_path_factory: pytest.TempPathFactory) -> PlainBundle:
    """Make a bundle in a new directory: `plain_bundle("r1", "r2", rank=2, width=4, seed=0, statistics=False)`."""
    place = tmp_path_factory.mktemp("plain")

    def make(*requests: str, **settings: Any) -> Bundle:
        return write_plain_bundle(place / str(len(list(place.iterdir()))), requests or ("r1",), **settings)

    return make


@pytest.fixture
def home(tmp_path: Path, plain_bundle: PlainBundle, plain_base: str) -> Any:
    """A registry, a policy and servers on a fake engine; see `service_home.py`."""
    from tests.eul_serve.service_home import ServiceHome

    return ServiceHome(tmp_path, plain_bundle, plain_base)
