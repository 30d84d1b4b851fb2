"""A composite's manifest and its fine-tune: what is read, and everything that is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eul_serve.errors import BundleFormatError, RefusedError
from eul_serve.format import Manifest, describe_files, read_bundle, write_bundle
from eul_serve.format.composite import check_passed, composite_of, fine_tune_digest, read_fine_tune
from eul_serve.format.lora import LoraConfig

BUNDLE = "sha256:" + 64 * "d"
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def tensors(rank: int = 2, module: str = "model.layers.0.self_attn.q_proj", **values: float) -> Tensors:
    a = np.full((rank, 3), values.get("a", 0.5), "<f4")
    b = np.full((3, rank), values.get("b", 0.25), "<f4")
    prefix = f"base_model.model.{module}.lora"
    return {
        f"{prefix}_A.weight": ("F32", (rank, 3), a.tobytes()),
        f"{prefix}_B.weight": ("F32", (3, rank), b.tobytes()),
    }


@pytest.fixture
def files(contents: Callable[..., dict[str, bytes]], pack: Callable[[Tensors], bytes]) -> dict[str, bytes]:
    """The five files of a valid composite."""
    config = LoraConfig(rank=2, alpha=4.0, target_modules=("q_proj",))
    return {**contents(), "lora_config.json": config.to_bytes(), "lora_model.safetensors": pack(tensors())}


@pytest.fixture
def write(tmp_path: Path, files: dict[str, bytes], manifest_of: Callable[..., Manifest]) -> Callable[..., Path]:
    """Writer of a composite, with files or parts of its manifest in the place of the valid ones."""

    def made(changed: Mapping[str, bytes] | None = None, **manifest: Any) -> Path:
        found = {**files, **(changed or {})}
        settings = {"bundle": BUNDLE, "fine_tune": fine_tune_digest(describe_files(found))}
        given = {
            "settings": {"composite": settings},
            "metrics": {"composite": {"passed": True}},
            "parents": (BUNDLE,),
            **manifest,
        }
        return write_bundle(tmp_path / "composite", manifest_of(found, **given), found).path

    return made


def test_a_composite_is_a_bundle_that_names_its_parts(write: Callable[..., Path], files: dict[str, bytes]) -> None:
    read = read_bundle(write())
    found = composite_of(read.manifest)
    assert found is not None
    assert (found.bundle, found.passed) == (BUNDLE, True)
    # The digest of the two files' digests by name, written out.
    listed = {name: read.manifest.files[name].sha256 for name in ("lora_config.json", "lora_model.safetensors")}
    import hashlib

    assert found.fine_tune == "sha256:" + hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    fine_tune = read_fine_tune(read.path, read.manifest)
    assert (fine_tune.config, fine_tune.weights) == (files["lora_config.json"], files["lora_model.safetensors"])
    assert check_passed(read.manifest) == found


def test_a_bundle_without_a_fine_tune_is_none(
    contents: Callable[..., dict[str, bytes]], manifest_of: Callable[..., Manifest]
) -> None:
    assert composite_of(manifest_of(contents())) is None
    assert check_passed(manifest_of(contents())) is None


@pytest.mark.parametrize(
    "metrics", [{}, {"composite": {}}, {"composite": {"passed": "yes"}}, {"composite": {"passed": 1}}]
)
def test_what_does_not_say_that_it_passed_has_not(write: Callable[..., Path], metrics: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="eul-train compose"):
        check_passed(read_bundle(write(metrics=metrics)).manifest)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"settings": {}}, r"lora_config\.json"),
        ({"settings": {"composite": {"bundle": BUNDLE}}}, "fine_tune"),
        (
            {"settings": {"composite": {"bundle": BUNDLE, "fine_tune": BUNDLE}}},
            "expected the digest of its listed files",
        ),
        ({"settings": {"composite": {"bundle": "latest", "fine_tune": BUNDLE}}}, "bundle"),
        ({"settings": {"composite": True}}, "composite"),
        ({"parents": ()}, "parents"),
        ({"parents": (BUNDLE, "sha256:" + 64 * "e")}, "parents"),
    ],
)
def test_a_manifest_that_contradicts_its_files_is_refused(
    write: Callable[..., Path], manifest: dict[str, Any], words: str
) -> None:
    with pytest.raises(BundleFormatError, match=words):
        write(**manifest)


def test_settings_without_files_are_refused(
    contents: Callable[..., dict[str, bytes]], manifest_of: Callable[..., Manifest]
) -> None:
    manifest = manifest_of(
        contents(), settings={"composite": {"bundle": BUNDLE, "fine_tune": BUNDLE}}, parents=(BUNDLE,)
    )
    with pytest.raises(BundleFormatError, match="settings alone"):
        composite_of(manifest)


def test_half_a_fine_tune_is_refused(files: dict[str, bytes], manifest_of: Callable[..., Manifest]) -> None:
    half = {name: data for name, data in files.items() if name != "lora_config.json"}
    with pytest.raises(BundleFormatError, match=r"lora_model\.safetensors"):
        composite_of(manifest_of(half, settings={"composite": {}}, parents=(BUNDLE,)))


@pytest.mark.parametrize(
    "changed",
    [
        tensors(rank=3),
        tensors(module="model.layers.0.self_attn.k_proj"),
        tensors(a=float("nan")),
        tensors(b=float("inf")),
        {"base_model.model.lm_head.weight": ("F32", (1,), b"\0\0\0\0")},
        dict(list(tensors().items())[:1]),
        dict(list(tensors().items())[1:]),
        {},
    ],
    ids=["rank", "target", "nan", "infinity", "whole module", "no B", "no A", "empty"],
)
def test_weights_that_are_no_plain_lora_are_refused(
    write: Callable[..., Path], pack: Callable[[Tensors], bytes], changed: Tensors
) -> None:
    with pytest.raises(BundleFormatError):
        write({"lora_model.safetensors": pack(changed)})


@pytest.mark.parametrize(
    "change",
    [
        {"r": 0}, {"r": True}, {"lora_alpha": 0.0}, {"lora_alpha": 4}, {"peft_type": "EUL"}, {"bias": "all"},
        {"inference_mode": False}, {"target_modules": ["q_proj", "q_proj"]}, {"task_type": "TOKEN_CLS"},
        {"use_rslora": 1}, {"rank_pattern": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_in_another_form_is_refused(
    write: Callable[..., Path], files: dict[str, bytes], change: dict[str, Any]
) -> None:
    config = {**json.loads(files["lora_config.json"]), **change}
    with pytest.raises(BundleFormatError):
        write({"lora_config.json": json.dumps(config, indent=2, sort_keys=True).encode()})


@pytest.mark.parametrize("name", ["lora_config.json", "lora_model.safetensors"])
def test_a_flipped_bit_is_seen_however_it_is_read(write: Callable[..., Path], name: str) -> None:
    path = write()
    manifest = read_bundle(path).manifest
    data = bytearray((path / name).read_bytes())
    data[-1] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(BundleFormatError, match=name):
        read_bundle(path)
    with pytest.raises(BundleFormatError, match=name):
        read_fine_tune(path, manifest)


def test_a_link_is_not_followed(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write()
    weights = path / "lora_model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleFormatError, match="link"):
        read_bundle(path)


def test_a_composite_has_a_revision_of_its_own(
    write: Callable[..., Path], contents: Callable[..., dict[str, bytes]], manifest_of: Callable[..., Manifest]
) -> None:
    composite = read_bundle(write()).manifest
    assert composite.revision != manifest_of(contents()).revision
    assert composite.revision != replace(composite, metrics={}).revision
