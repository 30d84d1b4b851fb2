"""Tags of records and addresses of registries: what goes in comes out, and nothing else does."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_serve.registry.oci.place import Place
from eul_serve.registry.oci.tags import LOCK, UPLOAD, parts_of, tag_of

HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
ANY = st.text(min_size=1, max_size=8) | NAMES | HEX
PARTS = st.lists(ANY | st.sampled_from(["revisions", "aliases", "log", ".json", "a.json"]), min_size=1, max_size=4)
OCI_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@given(parts=PARTS.map(tuple))
@example(parts=("log", ".json"))
@example(parts=("aF",))
def test_a_tag_leads_back_to_its_record(parts: tuple[str, ...]) -> None:
    with suppress(InputError):  # too long
        assert OCI_TAG.fullmatch(tag := tag_of(parts))
        assert parts_of(tag) == parts


@given(first=PARTS.map(tuple), second=PARTS.map(tuple))
def test_two_records_have_two_tags(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    if first != second and sum(map(len, first + second)) < 60:
        assert tag_of(first) != tag_of(second)


@given(tag=st.from_regex(OCI_TAG, fullmatch=True))
def test_any_other_tag_is_no_record_or_is_the_tag_of_its_record(tag: str) -> None:
    parts = parts_of(tag)
    assert parts is None or tag_of(parts) == tag


@given(alias=NAMES)
def test_no_alias_is_taken_for_a_record(alias: str) -> None:
    assert parts_of(alias) is None


@given(revision=HEX, signature=HEX)
def test_every_record_of_the_layout_has_a_tag(revision: str, signature: str) -> None:
    longest = "a" * 63
    for parts in [
        ("revisions", f"{revision}.json"),
        ("aliases", longest, "1234567890.json"),
        ("signatures", revision, f"{signature}.json"),
        ("claims", f"{signature}.json"),
        ("log", "9999999999.json"),
        ("orders", "1.json"),
        ("names", longest),
        ("registry.json",),
    ]:
        assert parts_of(tag_of(parts)) == parts
    assert tag_of(("revisions", f"{revision}.json")) == f"_R{revision}"
    assert parts_of(LOCK) is None
    assert parts_of(UPLOAD + revision) is None


@pytest.mark.parametrize(
    ("url", "base", "shown"),
    [
        ("oci://registry.invalid/a/b", "https://registry.invalid", "oci://registry.invalid/a/b"),
        ("oci://registry.invalid:5000/a/", "https://registry.invalid:5000", "oci://registry.invalid:5000/a"),
        ("oci+http://registry.invalid/a", "http://registry.invalid", "oci+http://registry.invalid/a"),
        ("oci://localhost:5000/a", "http://localhost:5000", "oci://localhost:5000/a"),
        ("oci://[::1]:5000/a", "http://[::1]:5000", "oci://[::1]:5000/a"),
        ("oci://localhost.invalid/a", "https://localhost.invalid", "oci://localhost.invalid/a"),
    ],
)
def test_only_this_machine_is_spoken_to_in_the_open_unasked(url: str, base: str, shown: str) -> None:
    place = Place.parse(url)
    assert (place.base, str(place)) == (base, shown)


@pytest.mark.parametrize(
    "url",
    [
        "oci://",
        "oci://host",
        "oci://host/",
        "oci:///path",
        "oci://host/Path",
        "oci://host/a//b",
        "oci://host/../b",
        "oci://host:port/a",
        "oci://host:99999/a",
        "oci://[::1/a",
        "oci://host/a?b",
        "oci://host/a#b",
        "https://host/a",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        Place.parse(url)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="oras login") as caught:
        Place.parse("oci://eve:hunter2@host/a")
    assert "hunter2" not in str(caught.value)


def test_a_name_that_makes_a_repository_too_long_is_refused() -> None:
    place = Place.parse("oci://host/" + "a" * 200)
    assert place.repository("b" * 40).endswith("b" * 40)
    with pytest.raises(InputError, match="more than 255"):
        place.repository("b" * 60)
