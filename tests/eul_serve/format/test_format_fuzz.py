"""Random damage: whatever the bytes, a bundle reads as valid or gives an EulError, and never anything else."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, EulError
from eul_serve.format import Bundle, BundleConfig, Manifest, read_bundle
from eul_serve.format.header import parse_header
from eul_serve.format.weights import load_layers

Contents = Callable[..., dict[str, bytes]]
Sign = Callable[[Mapping[str, bytes]], dict[str, bytes]]

NAMES = ["adapter_config.json", "adapter_model.safetensors", "README.md", "manifest.json"]
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "swap"]), st.integers(0, 2**16), st.binary(min_size=1, max_size=9)
    ),
    min_size=1,
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("sha256:" + 64 * "c"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def damage(data: bytes, steps: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, extra in steps:
        at = place % (len(data) + 1)
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (extra[0] or 1)]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + len(extra) :]
        elif kind == "insert":
            data = data[:at] + extra + data[at:]
        else:
            data = data[at:] + data[:at]
    return data


def read(files: Mapping[str, bytes]) -> Bundle | None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        try:
            bundle = read_bundle(Path(folder))
            load_layers(bundle)
        except EulError:
            return None
        return bundle


@given(name=st.sampled_from(NAMES), steps=DAMAGE)
@settings(max_examples=150, deadline=None)
def test_damage_never_goes_unseen(
    contents: Contents, sign: Sign, name: str, steps: list[tuple[str, int, bytes]]
) -> None:
    files = sign(contents())
    expected = read(files)
    assert expected is not None
    found = read({**files, name: damage(files[name], steps)})
    if damage(files[name], steps) != files[name]:
        assert found is None or found.revision != expected.revision
    # A manifest whose damage is itself canonical is another revision; nothing else may pass.
    assert found is None or name == "manifest.json" or damage(files[name], steps) == files[name]


@given(name=st.sampled_from(NAMES[:3]), steps=DAMAGE)
@settings(max_examples=150, deadline=None)
def test_damage_with_fitting_digests(
    contents: Contents, sign: Sign, name: str, steps: list[tuple[str, int, bytes]]
) -> None:
    files = contents()
    read(sign({**files, name: damage(files[name], steps)}))


@given(steps=DAMAGE)
@settings(max_examples=200)
def test_damaged_headers(contents: Contents, steps: list[tuple[str, int, bytes]]) -> None:
    data = contents()["adapter_model.safetensors"]
    try:
        header = parse_header(io.BytesIO(damage(data, steps)), "fuzzed")
    except BundleFormatError:
        return
    assert all(0 <= entry.begin <= entry.end for entry in header.tensors.values())


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for parse in (
        Manifest.from_bytes,
        BundleConfig.from_bytes,
        lambda found: parse_header(io.BytesIO(found), "fuzzed"),
    ):
        try:
            parse(data)
        except BundleFormatError:
            continue


def replace_somewhere(found: Any, value: Any, place: int) -> Any:
    """Replace the part of a JSON value that a number picks."""
    if isinstance(found, dict) and found:
        key = sorted(found)[place % len(found)]
        inner = found[key] if place < 64 else None
        return {**found, key: value if inner is None else replace_somewhere(inner, value, place // len(found))}
    if isinstance(found, list) and found and place < 64:
        at = place % len(found)
        return [*found[:at], replace_somewhere(found[at], value, place // len(found)), *found[at + 1 :]]
    return value


@given(which=st.booleans(), place=st.integers(0, 500), value=JSON)
@settings(max_examples=400)
def test_values_of_any_type_anywhere(contents: Contents, sign: Sign, which: bool, place: int, value: Any) -> None:
    files = sign(contents())
    data = files["manifest.json" if which else "adapter_config.json"]
    found = replace_somewhere(json.loads(data), value, place)
    text = json.dumps(found, sort_keys=True, **({"separators": (",", ":")} if which else {"indent": 2})).encode()
    try:
        parsed = Manifest.from_bytes(text) if which else BundleConfig.from_bytes(text)
    except BundleFormatError:
        return
    assert parsed.to_bytes() == text
