"""How a worker reads bundles: paths, links, changed bytes, other models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.engine.loading import cast_layer, check_path, is_bundle, read_layers
from eul_serve.engine.model_files import local_model, read_tensor
from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError
from eul_serve.format import (
    BundleConfig,
    ForgottenRequest,
    Manifest,
    describe_files,
    fingerprint,
    read_base,
    write_bundle,
)
from eul_serve.format.digest import digest_bytes
from eul_serve.format.weights import LayerWeights, dump_layers


@pytest.fixture
def bundle(tmp_path: Path, tiny_model: Path, make_bundle: Any) -> Path:
    return Path(make_bundle(tmp_path / "bundle", tiny_model).path)


def test_reads_a_bundle_of_this_model(bundle: Path, tiny_model: Path) -> None:
    read, layers = read_layers(bundle, bundle.parent, fingerprint(tiny_model))
    assert sorted(layers) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert read.config.rank == 4
    assert is_bundle(bundle)


def test_reads_a_bundle_with_layers_on_some_blocks(tmp_path: Path, tiny_model: Path) -> None:
    """The other blocks' slots stay empty: vLLM resets the slot of a module that an adapter has no weights for."""
    base = read_base(tiny_model)
    config = BundleConfig(rank=2, base_fingerprint=base.fingerprint, target_modules=("model.layers.1.mlp",))
    layer = LayerWeights(torch.ones(2, 64), torch.ones(64, 2), torch.zeros(2), config.activation)
    files = {
        "adapter_config.json": config.to_bytes(),
        "adapter_model.safetensors": dump_layers({"model.layers.1.mlp": layer}),
        "README.md": b"Layers on one block.\n",
    }
    request = ForgottenRequest(id="r", data=digest_bytes(b"r"), units=None)
    write_bundle(tmp_path / "some", Manifest(base=base, requests=(request,), files=describe_files(files)), files)
    read, layers = read_layers(tmp_path / "some", tmp_path, base.fingerprint)
    assert list(layers) == ["model.layers.1.mlp"]
    assert read.config.target_modules == ("model.layers.1.mlp",)


def test_a_relative_path_is_refused_with_the_absolute_one(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    with pytest.raises(InputError, match=r"expected an absolute path; use '/.*bundle'"):
        check_path(Path("bundle"), None)


@pytest.mark.parametrize("where", ["bundle", "parent"])
def test_a_path_through_a_link_is_refused(bundle: Path, tmp_path: Path, where: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle if where == "bundle" else tmp_path)
    path = link if where == "bundle" else link / "bundle"
    with pytest.raises(InputError, match="expected a path without links"):
        check_path(path, None)


def test_a_path_outside_the_cache_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a directory in the verified cache"):
        check_path(bundle, tmp_path / "cache")
    with pytest.raises(InputError, match="without links"):
        check_path(tmp_path / "cache" / ".." / "bundle", tmp_path / "cache")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "manifest.json"])
def test_a_file_that_is_a_link_is_refused(bundle: Path, tmp_path: Path, tiny_model: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / name)
    (bundle / name).symlink_to(tmp_path / name)
    with pytest.raises((InputError, BundleFormatError), match="expected a regular file"):
        read_layers(bundle, None, fingerprint(tiny_model))


def test_bytes_changed_after_a_load_are_found_by_the_next(bundle: Path, tiny_model: Path) -> None:
    base = fingerprint(tiny_model)
    read_layers(bundle, None, base)
    weights = bundle / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleFormatError, match="the file was changed"):
        read_layers(bundle, None, base)


def test_a_bundle_of_another_model_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleMismatchError, match="made for base model"):
        read_layers(bundle, None, "sha256:" + "0" * 64)


@pytest.mark.parametrize("content", ["", "[]", '{"peft_type": "LORA"}', "\x00"])
def test_what_is_no_bundle(tmp_path: Path, content: str) -> None:
    assert not is_bundle(tmp_path / "nothing")
    (tmp_path / "adapter_config.json").write_text(content)
    assert not is_bundle(tmp_path)


def test_a_value_too_large_for_the_dtype_is_refused() -> None:
    layer = LayerWeights(torch.full((1, 2), 1e6), torch.ones(2, 1), torch.zeros(1))
    assert cast_layer(layer, torch.bfloat16, "m").down.dtype == torch.bfloat16
    with pytest.raises(BundleFormatError, match=r"module 'm': expected values that fit torch.float16"):
        cast_layer(layer, torch.float16, "m")


def test_a_model_that_is_not_here_is_refused_without_asking_a_hub(tiny_model: Path) -> None:
    assert local_model(str(tiny_model)) == tiny_model
    for name in ("nobody/nothing-of-this-name", "/no/such/directory"):
        with pytest.raises(InputError, match="expected a local directory or a model in the local hub cache"):
            local_model(name)


def test_reads_single_tensors(tiny_model: Path) -> None:
    width = json.loads((tiny_model / "config.json").read_text())["hidden_size"]
    norm = read_tensor(tiny_model, "model.norm.weight")
    assert norm is not None
    assert norm.shape == (width,)
    assert read_tensor(tiny_model, "no.such.tensor") is None
