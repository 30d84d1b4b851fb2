"""The identity of a base model: what changes it, what does not, and directories that are no model."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_serve.format import fingerprint, read_base
from eul_serve.format.fingerprint import read_model_config

Pack = Callable[..., bytes]

# sha256 over the canonical JSON of [architecture fields, rows], worked out by hand in test_the_algorithm.
FINGERPRINT = "sha256:9d12a5e3de173fa63916ca10517e61c4ece88093c4bcb490b0afe1a9ff4aadf2"


def edit_config(model: Path, **changes: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_algorithm(model_dir: Path) -> None:
    import hashlib

    rows = [
        ["a", [2], "F32", hashlib.sha256(bytes(8)).hexdigest()],
        ["b", [1], "I64", hashlib.sha256(b"\x01" + bytes(7)).hexdigest()],
        ["c", [0], "F32", hashlib.sha256(b"").hexdigest()],
    ]
    fields = {"architectures": ["LlamaForCausalLM"], "hidden_size": 2, "model_type": "llama"}
    text = json.dumps([fields, rows], sort_keys=True, separators=(",", ":"))
    assert fingerprint(model_dir) == "sha256:" + hashlib.sha256(text.encode()).hexdigest() == FINGERPRINT


@given(byte=st.integers(0, 15), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_every_bit_of_the_weights_counts(model_dir: Path, byte: int, bit: int) -> None:
    path = model_dir / "model.safetensors"
    data = path.read_bytes()
    at = len(data) - 16 + byte
    path.write_bytes(data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :])
    try:
        assert fingerprint(model_dir) != FINGERPRINT
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize(
    "tensors",
    [
        {"A": ("F32", (2,), bytes(8)), "b": ("I64", (1,), b"\x01" + bytes(7)), "c": ("F32", (0,), b"")},
        {"a": ("F32", (1, 2), bytes(8)), "b": ("I64", (1,), b"\x01" + bytes(7)), "c": ("F32", (0,), b"")},
        {"a": ("I32", (2,), bytes(8)), "b": ("I64", (1,), b"\x01" + bytes(7)), "c": ("F32", (0,), b"")},
        {"a": ("F32", (2,), bytes(8)), "b": ("I64", (1,), b"\x01" + bytes(7))},
    ],
)
def test_names_shapes_and_dtypes_count(model_dir: Path, pack: Pack, tensors: dict[str, Any]) -> None:
    (model_dir / "model.safetensors").write_bytes(pack(tensors))
    assert fingerprint(model_dir) != FINGERPRINT


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 3}, {"rope_theta": 1.0}, {"hidden_act": "gelu"}, {"rms_norm_eps": 1e-3}, {"model_type": "x"}],
)
def test_architecture_counts(model_dir: Path, change: dict[str, Any]) -> None:
    edit_config(model_dir, **change)
    assert fingerprint(model_dir) != FINGERPRINT


@pytest.mark.parametrize(
    "change",
    [
        {"torch_dtype": "bfloat16"},
        {"dtype": "float16"},
        {"transformers_version": "9"},
        {"_name_or_path": "/x"},
        {"use_cache": 1},
    ],
)
def test_words_about_the_file_do_not_count(model_dir: Path, change: dict[str, Any]) -> None:
    edit_config(model_dir, **change)
    assert fingerprint(model_dir) == FINGERPRINT


@given(order=st.permutations(["a", "b", "c"]), cut=st.integers(1, 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12)
def test_shards_and_order_do_not_count(model_dir: Path, pack: Pack, order: list[str], cut: int) -> None:
    tensors = {"a": ("F32", (2,), bytes(8)), "b": ("I64", (1,), b"\x01" + bytes(7)), "c": ("F32", (0,), b"")}
    for path in model_dir.glob("*.safetensors"):
        path.unlink()
    for number, names in enumerate((order[:cut], order[cut:])):
        (model_dir / f"model-{number}.safetensors").write_bytes(pack({name: tensors[name] for name in names}))
    assert fingerprint(model_dir) == FINGERPRINT


def test_links_of_a_hub_snapshot_are_followed(model_dir: Path) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (model_dir / name).rename(model_dir.parent / name)
        (model_dir / name).symlink_to(f"../{name}")
    assert read_base(model_dir).fingerprint == FINGERPRINT


def test_a_tensor_in_two_files(model_dir: Path) -> None:
    (model_dir / "copy.safetensors").write_bytes((model_dir / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="tensor 'a' is in two files"):
        fingerprint(model_dir)


def test_the_base_model_of_a_directory(model_dir: Path) -> None:
    base = read_base(model_dir)
    assert (base.architecture, base.chat_template) == ("LlamaForCausalLM", None)
    (model_dir / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}"}))
    kept_in_config = read_base(model_dir)
    assert kept_in_config.chat_template is not None
    (model_dir / "chat_template.jinja").write_text("{{ x }}")
    assert read_base(model_dir) == kept_in_config  # the same text in the other place
    (model_dir / "chat_template.jinja").write_text("{{ y }}")
    assert read_base(model_dir).chat_template != kept_in_config.chat_template
    (model_dir / "tokenizer.json").write_text('{"a": 1}')
    assert read_base(model_dir).tokenizer != base.tokenizer


def test_several_chat_templates(model_dir: Path) -> None:
    path = model_dir / "tokenizer_config.json"
    path.write_text(json.dumps({"chat_template": [{"name": "default", "template": "a"}]}))
    first = read_base(model_dir).chat_template
    path.write_text(json.dumps({"chat_template": [{"name": "default", "template": "b"}]}))
    assert first != read_base(model_dir).chat_template
    path.write_text("{}")
    assert read_base(model_dir).chat_template is None


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes(data)


def fifo_for_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")


def looping_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("model.safetensors")


NO_MODELS: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda model: (model / "config.json").unlink(),
        "expected a local model directory with config.json.*eul-train base",
    ),
    (lambda model: (model / "model.safetensors").unlink(), r"expected \*.safetensors weights, found none"),
    (lambda model: (model / "tokenizer.json").unlink(), "expected a tokenizer"),
    (write("config.json", b"not json"), "config.json: expected JSON"),
    (write("config.json", b"[]"), "config.json: expected a JSON object"),
    (write("config.json", b'{"architectures": 5}'), "architectures: expected class names, found 5"),
    (write("config.json", b'{"architectures": {"a": 1}}'), "architectures: expected class names"),
    (write("config.json", b'{"architectures": [5]}'), "architectures: expected class names"),
    (write("tokenizer_config.json", b"[]"), "tokenizer_config.json: expected a JSON object"),
    (write("tokenizer_config.json", b"\xff"), "tokenizer_config.json: expected JSON"),
    (write("model.safetensors", b""), "model.safetensors: expected at least 8 bytes"),
    (write("model.safetensors", struct.pack("<Q", 2**60)), "expected a header of 2 to 0 bytes"),
    (write("model.safetensors", b"\x80\x04\x95" + bytes(100)), "pickle files are never read"),
    (fifo_for_weights, "expected a regular file"),
    (looping_weights, "expected a regular file"),
]


@pytest.mark.parametrize(("change", "words"), NO_MODELS)
def test_directories_that_are_no_model(model_dir: Path, change: Callable[[Path], object], words: str) -> None:
    change(model_dir)
    with pytest.raises(InputError, match=words):
        read_base(model_dir)


def test_paths_that_are_no_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path / "nul\x00", tmp_path / (300 * "n")):
        with pytest.raises(InputError, match="expected a local model directory"):
            read_model_config(path)


def test_a_config_of_many_megabytes(model_dir: Path) -> None:
    with open(model_dir / "config.json", "wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(InputError, match="expected at most 67108864 bytes"):
        read_model_config(model_dir)
