"""Names of tensors, bundles and references."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, EulError, InputError
from eul_serve.format import Reference, TensorName, check_digest, check_name
from eul_serve.format.names import PARTS

SEGMENTS = st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True)
MODULES = st.builds(
    lambda first, rest: ".".join([first, *rest]),
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True),
    st.lists(SEGMENTS, max_size=5),
)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True).filter(lambda name: ".." not in name)
DIGESTS = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(MODULES, st.sampled_from(PARTS))
def test_tensor_names_round_trip(module: str, part: str) -> None:
    name = TensorName(module, part)  # type: ignore[arg-type]  # sampled from the literals
    assert TensorName.parse(str(name)) == name


@given(st.text(max_size=80))
def test_any_text_is_a_tensor_name_or_an_error(text: str) -> None:
    for name in (text, f"base_model.model.{text}.eul_up.weight"):
        with suppress(BundleFormatError):
            assert str(TensorName.parse(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "mlp.eul_up.weight",
        "base_model.model..eul_up.weight",
        "base_model.model.a..b.eul_up.weight",
        "base_model.model.a/b.eul_up.weight",
        "base_model.model.a.eul_up.bias",
        "base_model.model.a.eul_up.weight\n",
        "base_model.model.a.lora_A.weight",
        "base_model.model." + 600 * "a" + ".eul_up.weight",
        "",
    ],
)
def test_wrong_tensor_names(name: str) -> None:
    with pytest.raises(BundleFormatError, match="expected a name 'base_model"):
        TensorName.parse(name)


@pytest.mark.parametrize("part", ["eul_gate.weight", "eul_gate.bias"])
def test_gates_are_reserved(part: str) -> None:
    with pytest.raises(BundleFormatError, match=r"reserved for a later version.*upgrade eul-serve"):
        TensorName.parse(f"base_model.model.model.layers.0.mlp.{part}")


@given(NAMES, NAMES, DIGESTS)
def test_references_round_trip(name: str, alias: str, digest: str) -> None:
    assert Reference.parse(name) == Reference(name, "stable", None)
    for reference in (Reference(name, alias, None), Reference(name, None, digest)):
        assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=300))
def test_any_text_is_a_reference_or_an_input_error(text: str) -> None:
    with suppress(InputError):
        reference = Reference.parse(text)
        assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text", ["", "a/b", "..", "a..b", "A", ".a", "-a", "a\n", "a" * 64, "a:", ":a", "a@", "a:b:c", "a@b", 201 * "a"]
)
def test_wrong_references(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        Reference.parse(text)


@pytest.mark.parametrize(
    "value", [None, 5, ["a"], b"a", "sha256:" + 64 * "A", "sha256:" + 63 * "a", "sha256:" + 64 * "a" + "\n"]
)
def test_values_that_are_no_digest(value: object) -> None:
    with pytest.raises(EulError, match="expected 'sha256:'"):
        check_digest(value)  # type: ignore[arg-type]  # wrong types are the point
    if not isinstance(value, str):
        with pytest.raises(EulError, match="expected 1 to 63"):
            check_name(value, "bundle")  # type: ignore[arg-type]  # the same
