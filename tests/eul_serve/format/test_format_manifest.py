"""The manifest: canonical bytes, round trips, and every value of a wrong type or range."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError
from eul_serve.format import BaseModel, BundleConfig, FileEntry, ForgottenRequest, Manifest
from eul_serve.format.manifest import round_metric

Contents = Callable[..., dict[str, bytes]]
ManifestOf = Callable[..., Manifest]

DIGESTS = st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}")
NAMES = st.text("abcxyz019", min_size=1, max_size=20)
FILES = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(
        lambda name: name not in {"manifest.json", "run.json"}
    ),
    st.builds(FileEntry, sha256=DIGESTS, size=st.integers(0, 2**50)),
    max_size=4,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BASES = st.builds(
    BaseModel,
    fingerprint=DIGESTS,
    architecture=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True),
    tokenizer=DIGESTS,
    chat_template=st.none() | DIGESTS,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[ForgottenRequest, ...]:
    """Requests with ascending ranges, some of them shared, or with no ranges at all."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    given_units = draw(st.booleans())
    end, units, found = 0, None, []
    for name in names:
        if given_units and (units is None or draw(st.booleans())):
            begin = end + draw(st.integers(0, 2))
            end = begin + draw(st.integers(1, 8))
            units = (begin, end)
        found.append(ForgottenRequest(id=name, data=draw(DIGESTS), units=units))
    return tuple(found)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    files = draw(FILES)
    artifacts = {name: entry for name, entry in draw(FILES).items() if name not in files}
    return Manifest(
        base=draw(BASES),
        requests=draw(requests()),
        parents=tuple(draw(st.lists(DIGESTS, max_size=3))),
        settings=draw(st.dictionaries(st.text(max_size=8), JSON, max_size=3)),
        training_dtype=draw(st.sampled_from(["float32", "bfloat16", "float16"])),
        metrics=draw(st.dictionaries(st.text(max_size=8), JSON, max_size=3)),
        files=files,
        artifacts=artifacts,
    )


@given(manifests())
def test_manifests_round_trip(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    assert Manifest.from_bytes(data) == manifest
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    assert data.isascii()


@given(
    st.integers(1, 4096),
    DIGESTS,
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    st.sampled_from(["relu", "gelu", "silu"]),
    st.booleans(),
    st.sampled_from(["CAUSAL_LM", "SEQ_2_SEQ_LM"]),
)
def test_configs_round_trip(
    rank: int, digest: str, targets: list[str], activation: str, hidden_bias: bool, task_type: str
) -> None:
    config = BundleConfig(
        rank=rank,
        base_fingerprint=digest,
        target_modules=tuple(targets),
        activation=activation,
        hidden_bias=hidden_bias,
        task_type=task_type,
    )
    assert BundleConfig.from_bytes(config.to_bytes()) == config


def test_the_revision_does_not_depend_on_the_order_of_keys(contents: Contents, manifest_of: ManifestOf) -> None:
    files = contents()
    backwards = dict(reversed(list(files.items())))
    one = manifest_of(files, settings={"a": 1, "b": {"c": 1, "d": 2}})
    two = manifest_of(backwards, settings={"b": {"d": 2, "c": 1}, "a": 1})
    assert one.revision == two.revision


def edited(manifest: Manifest, path: tuple[str | int, ...], value: object) -> bytes:
    found: Any = json.loads(manifest.to_bytes())
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


DIGEST = "sha256:" + 64 * "c"
REQUEST = {"id": "r1", "data": DIGEST, "units": [0, 2]}
ENTRY = {"sha256": DIGEST, "size": 1}
EDITS: list[tuple[tuple[str | int, ...], object, str]] = [
    (("version",), 2, "version: expected 1, found 2"),
    (("version",), "1", "version: expected int, found str"),
    (("base",), [], "base: expected dict, found list"),
    (("base", "chat_template"), 0, "chat_template: expected str, found int"),
    (("base", "chat_template"), [], "chat_template: expected str, found list"),
    (("base", "chat_template"), False, "chat_template: expected str, found bool"),
    (("base", "chat_template"), "", "digest ''"),
    (("base", "fingerprint"), None, "fingerprint: expected str, found NoneType"),
    (("base", "fingerprint"), "md5:1", "digest 'md5:1'"),
    (("base", "architecture"), "../x", "architecture: expected a class name"),
    (("base", "extra"), 1, "base: unknown key 'extra'"),
    (("requests",), [], "requests: expected 1 to 10000, found 0"),
    (("requests",), ["r1"], "request: expected an object, found str"),
    (("requests",), [REQUEST, REQUEST], "an id occurs twice"),
    (("requests", 0, "id"), "a/b", "request name 'a/b'"),
    (("requests", 0, "id"), 5, "id: expected str, found int"),
    (("requests", 0, "data"), "text of a person", "digest 'text of a person'"),
    (("requests", 0, "text"), "text of a person", "unknown key 'text'"),
    (("requests", 0, "units"), 0, "units: expected list, found int"),
    (("requests", 0, "units"), "", "units: expected list, found str"),
    (("requests", 0, "units"), {}, "units: expected list, found dict"),
    (("requests", 0, "units"), [], "units: expected \\[first, end\\]"),
    (("requests", 0, "units"), [0], "units: expected \\[first, end\\]"),
    (("requests", 0, "units"), [2, 2], "units: expected \\[first, end\\]"),
    (("requests", 0, "units"), [-1, 2], "units: expected \\[first, end\\]"),
    (("requests", 0, "units"), [0, 10**50], "units: expected \\[first, end\\]"),
    (("requests", 0, "units"), [False, 2], "units: expected \\[first, end\\]"),
    (("requests",), [REQUEST, {**REQUEST, "id": "r2", "units": [1, 2]}], "request 'r2': units: expected to start at 2"),
    (("requests",), [REQUEST, {**REQUEST, "id": "r2", "units": None}], "units for all requests or for none"),
    (("parents",), [5], "digest 5"),
    (("parents",), [[]], "digest \\[\\]"),
    (("training_dtype",), "float8", "training_dtype: expected one of float32"),
    (("settings",), [], "settings: expected dict, found list"),
    (("files", "a/b"), ENTRY, "expected the plain name of a file"),
    (("files", ".."), ENTRY, "expected the plain name of a file"),
    (("files", "run.json"), ENTRY, "none of manifest.json, run.json"),
    (("files", "manifest.json"), ENTRY, "none of manifest.json, run.json"),
    (("files", "\ud800"), ENTRY, "expected the plain name of a file"),
    (("files", "README.md"), 5, "expected an object, found int"),
    (("files", "README.md", "size"), -1, "size: expected 0 or more, found -1"),
    (("files", "README.md", "size"), True, "size: expected int, found bool"),
    (("files", "README.md", "sha256"), "x", "digest 'x'"),
    (("artifacts", "README.md"), ENTRY, "file 'README.md': expected under files or artifacts, found in both"),
    (("files",), {f"f{n}": ENTRY for n in range(65)}, "expected at most 64 files, found 65"),
    (("unknown",), 1, "unknown key 'unknown'"),
]


@pytest.mark.parametrize(("path", "value", "words"), EDITS)
def test_wrong_values(
    contents: Contents, manifest_of: ManifestOf, path: tuple[str | int, ...], value: object, words: str
) -> None:
    with pytest.raises(BundleFormatError, match=words):
        Manifest.from_bytes(edited(manifest_of(contents()), path, value))


def test_many_parents(contents: Contents, manifest_of: ManifestOf) -> None:
    with pytest.raises(BundleFormatError, match="parents: expected at most 10000, found 10001"):
        manifest_of(contents(), parents=10_001 * (DIGEST,))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\n",
        lambda data: data.replace(b",", b", ", 1),
        lambda data: data.replace(b'"r1"', b'"\\u00721"'),
        lambda data: data.replace(b'"settings":{}', b'"settings":{"a":1.0e0}'),
        lambda data: data.replace(b'"settings":{}', b'"settings":{"b":1,"a":2}'),
        lambda data: json.dumps(json.loads(data), indent=2, sort_keys=True).encode(),
    ],
)
def test_other_forms_of_the_same_json(
    contents: Contents, manifest_of: ManifestOf, change: Callable[[bytes], bytes]
) -> None:
    data = manifest_of(contents()).to_bytes()
    assert change(data) != data
    with pytest.raises(BundleFormatError, match="expected canonical JSON"):
        Manifest.from_bytes(change(data))


@pytest.mark.parametrize("value", [b"Infinity", b"1e999", b"NaN", 5000 * b"1", b'{"a":1,"a":1}', 40 * b"[" + 40 * b"]"])
def test_values_that_json_or_the_format_does_not_have(
    contents: Contents, manifest_of: ManifestOf, value: bytes
) -> None:
    data = manifest_of(contents()).to_bytes().replace(b'"settings":{}', b'"settings":{"a":' + value + b"}")
    with pytest.raises(BundleFormatError, match="expected JSON"):
        Manifest.from_bytes(data)


def test_metrics_are_rounded() -> None:
    assert round_metric(1.23456789) == 1.234568
    assert round_metric(float("nan")) is None
    assert round_metric(float("inf")) is None
