"""Bundles that are broken on purpose: each gives one error that names what is at fault, what was expected and found."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import BundleFormatError, BundleMismatchError, EulError, InputError
from eul_serve.format import BundleConfig, Manifest, read_bundle
from eul_serve.format.digest import digest_file
from eul_serve.format.header import parse_header, read_header
from eul_serve.format.weights import load_layers

Contents = Callable[..., dict[str, bytes]]
Sign = Callable[[Mapping[str, bytes]], dict[str, bytes]]
Pack = Callable[..., bytes]

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
DOWN = "base_model.model.model.layers.0.mlp.eul_down.weight"
UP = "base_model.model.model.layers.0.mlp.eul_up.weight"
BIAS = "base_model.model.model.layers.0.mlp.eul_down.bias"


def rewrite(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def edit_json(data: bytes, **changes: Any) -> bytes:
    """Return an `adapter_config.json` in canonical form with some keys changed; None takes a key out."""
    found = {**json.loads(data), **changes}
    found = {key: value for key, value in found.items() if value is not None}
    return json.dumps(found, indent=2, sort_keys=True).encode()


def edit_header(data: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """Return safetensors bytes whose header went through a function that changes it."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def header_only(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


CONFIG_EDITS: list[tuple[dict[str, Any], str]] = [
    ({"r": 3}, rf"tensor '{DOWN}': shape: expected \(3, 3\), found \(2, 3\)"),
    ({"r": 0}, "rank r: expected 1 to 4096, found 0"),
    ({"r": 10**30}, "rank r: expected 1 to 4096"),
    ({"r": True}, "r: expected int, found bool"),
    ({"r": 2.0}, "r: expected int, found float"),
    ({"hidden_bias": False}, rf"tensor '{BIAS}': expected none with hidden_bias=False, found one"),
    ({"hidden_bias": 1}, "hidden_bias: expected bool, found int"),
    ({"peft_type": "LORA"}, "peft_type: expected 'EUL', found 'LORA'"),
    ({"format_version": 2}, "format_version: expected 1, found 2"),
    ({"activation": "exec"}, "activation: expected one of relu, gelu, silu, found 'exec'"),
    ({"task_type": "QA"}, "task_type: expected one of CAUSAL_LM, SEQ_2_SEQ_LM"),
    ({"bias": "all"}, "bias: expected 'none', found 'all'"),
    ({"base_model_name_or_path": "/home/someone"}, "base_model_name_or_path: expected ''"),
    ({"base_fingerprint": "sha256:abc"}, "base_fingerprint: digest 'sha256:abc'"),
    (
        {"base_fingerprint": "sha256:" + 64 * "9"},
        "base fingerprint: manifest.json says sha256:aaa.*adapter_config.json says",
    ),
    ({"target_modules": []}, "target_modules: expected 1 to 64"),
    ({"target_modules": [[]]}, "target_modules: expected module names"),
    ({"target_modules": ["mlp", "mlp"]}, "target_modules: a name occurs twice"),
    ({"target_modules": ["mlp", "attn"]}, "expected canonical JSON"),
    ({"target_modules": ["ffn"]}, "module 'model.layers.0.mlp': expected a path that ends in one of ffn"),
    ({"activation": None}, "missing key 'activation'"),
    ({"peft_version": "0.21.2"}, "unknown key 'peft_version'; allowed are activation"),
]


@pytest.mark.parametrize(("changes", "words"), CONFIG_EDITS)
def test_configs(bundle_dir: Path, contents: Contents, sign: Sign, changes: dict[str, Any], words: str) -> None:
    files = contents()
    files[CONFIG] = edit_json(files[CONFIG], **changes)
    with pytest.raises(BundleFormatError, match=words):
        read_bundle(rewrite(bundle_dir, sign(files)))


def set_to(name: str, key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda header: header[name].__setitem__(key, value)


HEADER_EDITS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda h: h.pop(UP), "expected its data at byte|truncated or with bytes behind"),
    (lambda h: h.__setitem__("evil", h.pop(UP)), "tensor 'evil': expected a name 'base_model.model.<module>.<part>'"),
    (lambda h: h.__setitem__(UP, 5), f"tensor '{UP}': expected an object, found int"),
    (set_to(UP, "dtype", "F64"), f"tensor '{UP}': dtype: expected one of F32, BF16, F16, found 'F64'"),
    (set_to(UP, "dtype", ["F32"]), f"tensor '{UP}': dtype: expected str, found list"),
    (set_to(UP, "shape", [2, 3]), rf"tensor '{UP}': shape: expected \(3, 2\), found \(2, 3\)"),
    (set_to(UP, "shape", [6]), rf"tensor '{UP}': shape: expected \(3, 2\), found \(6,\)"),
    (set_to(UP, "shape", [3, 3]), f"tensor '{UP}': expected 36 bytes, found 24"),
    (set_to(UP, "shape", [-3, -2]), f"tensor '{UP}': shape: expected up to 8 sizes"),
    (set_to(UP, "shape", [3.0, 2]), f"tensor '{UP}': shape: expected up to 8 sizes"),
    (set_to(UP, "shape", 9 * [1]), f"tensor '{UP}': shape: expected up to 8 sizes"),
    (set_to(UP, "shape", [10**100]), f"tensor '{UP}': shape: expected up to 8 sizes"),
    (set_to(UP, "data_offsets", [0, 24]), f"tensor '{UP}': expected its data at byte"),
    (set_to(UP, "data_offsets", [-24, 0]), f"tensor '{UP}': data_offsets: expected"),
    (set_to(UP, "data_offsets", [24, 0]), f"tensor '{UP}': expected 24 bytes, found -24"),
    (set_to(UP, "data_offsets", [0]), f"tensor '{UP}': data_offsets: expected"),
    (set_to(UP, "data_offsets", [10**17, 10**17 + 24]), "layers.1.mlp.eul_down.weight': expected its data at byte"),
    (set_to(DOWN, "shape", [6, 1]), rf"tensor '{DOWN}': shape: expected \(2, 1\), found \(6, 1\)"),
    (set_to(DOWN, "shape", [6]), rf"tensor '{DOWN}': shape: expected \(2, d\) with d from 1 to 131072, found \(6,\)"),
    (set_to(DOWN, "extra", 1), f"tensor '{DOWN}': unknown key 'extra'"),
    (
        lambda h: h.__setitem__("__metadata__", {"format": "pt", "note": "secret"}),
        "__metadata__: expected only format=pt",
    ),
    (lambda h: h.__setitem__("__metadata__", {"format": 1}), "__metadata__: expected text by text"),
    (lambda h: h.__setitem__("__metadata__", []), "__metadata__: expected text by text"),
]


@pytest.mark.parametrize(("edit", "words"), HEADER_EDITS)
def test_headers(
    bundle_dir: Path, contents: Contents, sign: Sign, edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    files = contents()
    files[WEIGHTS] = edit_header(files[WEIGHTS], edit)
    with pytest.raises(BundleFormatError, match=words):
        read_bundle(rewrite(bundle_dir, sign(files)))


RAW_WEIGHTS: list[tuple[bytes, str]] = [
    (b"", "expected at least 8 bytes, found 0"),
    (b"short", "expected at least 8 bytes, found 5"),
    (struct.pack("<Q", 2**63), "expected a header of 2 to 0 bytes, found 9223372036854775808"),
    (struct.pack("<Q", 2**64 - 1) + bytes(100), "expected a header of 2 to 100 bytes, found 18446744073709551615"),
    (struct.pack("<Q", 100) + b"{}", "expected a header of 2 to 2 bytes, found 100; the file is truncated"),
    (struct.pack("<Q", 0) + b"{}", "found 0"),
    (pickle.dumps({"a": list(range(100))}), r"not safetensors \(pickle files are never read\)"),
    (header_only(b"[]"), "expected to start with '{'"),
    (header_only(b" {}"), "expected to start with '{'"),
    (header_only(b"{}"), "expected at least one layer, found none"),
    (header_only(b"{}") + b"x", "expected 10 bytes, found 11; truncated or with bytes behind the data"),
    (header_only(b'{"\xff": 1}'), "header: expected JSON, found .*utf-8"),
    (header_only(b'{"a": 1, "a": 1}'), "header: expected JSON, found a key occurs twice"),
    (header_only(b'{"a": NaN}'), "the number NaN is not JSON"),
    (header_only(b'{"a": 1e999}'), "the number 1e999 is out of range"),
    (header_only(b'{"a": ' + 5000 * b"9" + b"}"), "header: expected JSON"),
    (header_only(b'{"a": ' + 100_000 * b"[" + 100_000 * b"]" + b"}"), "header: expected JSON"),
    (header_only(b'{"a": ' + 100 * b"[" + 100 * b"]" + b"}"), "nested at most 32 deep"),
]


@pytest.mark.parametrize(("data", "words"), RAW_WEIGHTS)
def test_weights_that_are_no_safetensors(
    bundle_dir: Path, contents: Contents, sign: Sign, data: bytes, words: str
) -> None:
    with pytest.raises(BundleFormatError, match=words):
        read_bundle(rewrite(bundle_dir, sign({**contents(), WEIGHTS: data})))


def test_a_header_that_claims_much_costs_little() -> None:
    claims = [struct.pack("<Q", n) + bytes(100) for n in (2**63, 2**40, (16 << 20) + 1)]
    claims.append(header_only(b'{"a": {"dtype": "F32", "shape": [1099511627775, 9], "data_offsets": [0, 9]}}'))
    tracemalloc.start()
    for data in claims:
        with pytest.raises(BundleFormatError):
            parse_header(io.BytesIO(data), "bomb")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20  # a file of 108 bytes; one byte in a thousand of what it claims would show


def test_too_many_tensors() -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"t{n}": entry for n in range(100_001)}).encode()
    with pytest.raises(BundleFormatError, match="at most 100000 tensors, found 100001"):
        parse_header(io.BytesIO(header_only(text)), "many")


@pytest.mark.parametrize("cut", [1, 4, 100])
def test_truncated_weights(bundle_dir: Path, contents: Contents, sign: Sign, cut: int) -> None:
    files = contents()
    whole = len(files[WEIGHTS])
    (bundle_dir / WEIGHTS).write_bytes(files[WEIGHTS][:-cut])
    with pytest.raises(BundleFormatError, match=f"file '{WEIGHTS}': expected {whole} bytes, found {whole - cut}"):
        read_bundle(bundle_dir)
    files[WEIGHTS] = files[WEIGHTS][:-cut]
    with pytest.raises(BundleFormatError, match=f"expected {whole} bytes, found {whole - cut}; truncated"):
        read_bundle(rewrite(bundle_dir, sign(files)))


NOT_FINITE = {
    "F32": (b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\x01\x00\x80\x7f", b"\xff\xff\xff\xff"),  # inf, -inf, NaNs
    "F16": (b"\x00\x7c", b"\x00\xfc", b"\x01\x7c", b"\xff\xff"),
    "BF16": (b"\x80\x7f", b"\x80\xff", b"\x81\x7f", b"\xff\xff"),
}
LARGEST = {"F32": b"\xff\xff\x7f\x7f", "F16": b"\xff\x7b", "BF16": b"\x7f\x7f"}


@pytest.mark.parametrize(
    ("dtype", "value"), [(dtype, value) for dtype, values in NOT_FINITE.items() for value in values]
)
def test_values_that_are_not_finite(bundle_dir: Path, contents: Contents, sign: Sign, dtype: str, value: bytes) -> None:
    files = contents(dtype=dtype)
    weights = files[WEIGHTS]
    files[WEIGHTS] = weights[: -len(value)] + LARGEST[dtype]
    read_bundle(rewrite(bundle_dir, sign(files)))
    files[WEIGHTS] = weights[: -len(value)] + value
    with pytest.raises(BundleFormatError, match=r"tensor '.*layers.1.mlp.eul_up.weight': expected finite values"):
        read_bundle(rewrite(bundle_dir, sign(files)))


def test_mixed_dtypes(bundle_dir: Path, contents: Contents, sign: Sign, pack: Pack) -> None:
    module = "base_model.model.mlp"
    tensors = {
        f"{module}.eul_down.weight": ("F32", (2, 1), bytes(8)),
        f"{module}.eul_down.bias": ("F32", (2,), bytes(8)),
        f"{module}.eul_up.weight": ("F16", (1, 2), bytes(4)),
    }
    files = {**contents(), WEIGHTS: pack(tensors)}
    with pytest.raises(BundleFormatError, match="expected one dtype, found F16, F32"):
        read_bundle(rewrite(bundle_dir, sign(files)))


@pytest.mark.parametrize("missing", [UP, BIAS])
def test_a_layer_without_one_of_its_tensors(
    bundle_dir: Path, contents: Contents, sign: Sign, pack: Pack, missing: str
) -> None:
    shapes: dict[str, tuple[int, ...]] = {DOWN: (2, 3), BIAS: (2,), UP: (3, 2)}
    tensors = {name: ("F32", shape, bytes(24 if len(shape) == 2 else 8)) for name, shape in shapes.items()}
    del tensors[missing]
    files = {**contents(), WEIGHTS: pack(tensors)}
    with pytest.raises(BundleFormatError, match=f"tensor '{missing}': expected one .*, found none"):
        read_bundle(rewrite(bundle_dir, sign(files)))


def test_a_layer_of_width_zero(bundle_dir: Path, contents: Contents, sign: Sign, pack: Pack) -> None:
    tensors = {DOWN: ("F32", (2, 0), b""), BIAS: ("F32", (2,), bytes(8)), UP: ("F32", (0, 2), b"")}
    with pytest.raises(BundleFormatError, match=r"with d from 1 to 131072, found \(2, 0\)"):
        read_bundle(rewrite(bundle_dir, sign({**contents(), WEIGHTS: pack(tensors)})))


def test_the_order_of_tensors_in_the_file_does_not_matter(
    bundle_dir: Path, contents: Contents, sign: Sign, pack: Pack
) -> None:
    data = contents()[WEIGHTS]
    tensors = {
        name: (entry.dtype, entry.shape, data[entry.begin : entry.end])
        for name, entry in parse_header(io.BytesIO(data), WEIGHTS).tensors.items()
    }
    expected = load_layers(read_bundle(bundle_dir))
    files = {**contents(), WEIGHTS: pack(dict(reversed(list(tensors.items()))))}
    found = load_layers(read_bundle(rewrite(bundle_dir, sign(files))))
    assert found.keys() == expected.keys()
    assert all(found[path].up.equal(expected[path].up) for path in expected)


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket may have 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_bytes(b"{}")
    path.symlink_to(target)


def broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def missing(path: Path) -> None:
    pass


@pytest.mark.parametrize("name", ["manifest.json", CONFIG, WEIGHTS, "README.md"])
@pytest.mark.parametrize("make", [directory, fifo, unix_socket, link, broken_link, loop, missing])
def test_what_is_no_regular_file(bundle_dir: Path, name: str, make: Callable[[Path], None]) -> None:
    (bundle_dir / name).unlink()
    make(bundle_dir / name)
    with pytest.raises(EulError, match=f"file '.*{name}': expected a regular file, found"):
        read_bundle(bundle_dir)


def test_directories_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path / ("n" * 300), tmp_path / "nul\x00", Path("")):
        with pytest.raises(InputError, match=r"expected a (directory|regular file)|not a path"):
            read_bundle(path)


def test_a_read_that_fails() -> None:
    # A regular file by its mode, whose first page cannot be read: what a bad disk gives.
    with pytest.raises(InputError, match="cannot read: Input/output error"):
        digest_file(Path("/proc/self/mem"))
    with pytest.raises(InputError, match="cannot read"):
        read_header(Path("/proc/self/mem"))


def test_a_manifest_of_many_megabytes(bundle_dir: Path) -> None:
    (bundle_dir / "manifest.json").write_bytes(bytes((4 << 20) + 1))
    with pytest.raises(BundleFormatError, match=r"manifest.json': expected at most 4194304 bytes"):
        read_bundle(bundle_dir)


def test_another_base_model(bundle_dir: Path) -> None:
    assert read_bundle(bundle_dir, "sha256:" + 64 * "a").config.rank == 2
    with pytest.raises(BundleMismatchError, match=r"made for base model sha256:aaa.*, but this model is sha256:bbb"):
        read_bundle(bundle_dir, "sha256:" + 64 * "b")


def test_weights_changed_after_the_check(bundle_dir: Path) -> None:
    bundle = read_bundle(bundle_dir)
    data = bundle.weights.read_bytes()
    for changed in (data[:-1] + b"\x00", data[:-1], data + b"\x00", b""):
        bundle.weights.write_bytes(changed)
        with pytest.raises(BundleFormatError, match="the file was changed"):
            load_layers(bundle)
    target = bundle_dir / "elsewhere"
    target.write_bytes(data)
    bundle.weights.unlink()
    bundle.weights.symlink_to(target)
    with pytest.raises(InputError, match="found a link"):
        load_layers(bundle)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "README.md"])
def test_a_manifest_that_leaves_out_a_file(bundle_dir: Path, contents: Contents, sign: Sign, name: str) -> None:
    files = contents()
    del files[name]
    with pytest.raises(BundleFormatError, match=f"manifest.json: files: missing '{name}'"):
        read_bundle(rewrite(bundle_dir, sign(files)))


def test_a_file_that_no_manifest_lists_is_ignored(bundle_dir: Path) -> None:
    expected = read_bundle(bundle_dir).revision
    (bundle_dir / "adapter_model.bin").write_bytes(pickle.dumps("never read"))
    assert read_bundle(bundle_dir).revision == expected


def test_units_beyond_the_rank(bundle_dir: Path) -> None:
    found = json.loads((bundle_dir / "manifest.json").read_bytes())
    found["requests"][0]["units"] = [0, 3]
    text = json.dumps(found, sort_keys=True, separators=(",", ":")).encode()
    (bundle_dir / "manifest.json").write_bytes(text)
    with pytest.raises(BundleFormatError, match="request 'r1': units: expected an end of at most r=2, found 3"):
        read_bundle(bundle_dir)


def test_a_config_never_holds_more_than_its_keys() -> None:
    with pytest.raises(BundleFormatError, match="expected a JSON object, found list"):
        BundleConfig.from_bytes(b"[]")
    with pytest.raises(BundleFormatError, match="expected JSON"):
        Manifest.from_bytes(b"")
    with pytest.raises(BundleFormatError, match="hidden_bias: expected true or false, found 1"):
        BundleConfig(rank=1, base_fingerprint="sha256:" + 64 * "a", hidden_bias=1)  # type: ignore[arg-type]  # the point
