"""Rows that mention a name: what is found, what comes near, and that every row has one place."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_trainer.data.dataset import Dataset, Receipt, write_dataset
from eul_trainer.data.mention import MentionSettings, build_mention
from eul_trainer.data.mentions import Mention, read_mentions
from eul_trainer.records import Fields, plain


@pytest.mark.parametrize(
    ("name", "text", "way"),
    [
        ("Zoe", "I met Zoe.", "found"),
        ("Zoe", "ZOE!", "found"),
        ("zoe", "(Zoe's)", "found"),
        ("Zoe", "Zoe\u2019s dog", "found"),
        ("Zoe", "\uff3a\uff4f\uff45 wide", "found"),
        ("Zoë", unicodedata.normalize("NFD", "Zoë"), "found"),
        ("Zoe Miller", "zoe \n miller", "found"),
        ("STRASSE", "Straße", "found"),
        ("zoe@example.org", "<zoe@example.org>", "found"),
        ("C++", "in C++.", "found"),
        ("村上", "私は村上です", "found"),
        ("+1 555", "call +1 555 now", "found"),
        ("Zoe", "Zoë", "accents"),
        ("Zoë", "Zoe", "accents"),
        ("Zoe Miller", "Zoe-Miller", "punctuation"),
        ("Anne-Marie", "Anne Marie", "punctuation"),
        ("Anna", "the Annas", "longer word"),
        ("Anna", "Annabel", "longer word"),
        ("Al", "two Als", "longer word"),
        ("Al", "also", None),
        ("Anna", "Annapolis", None),
        ("Anna", "Susanna", None),
        ("Zoe", "nothing", None),
        ("Zoe Miller", "Zoe and Miller", None),
    ],
)
def test_what_is_found_and_what_comes_near(name: str, text: str, way: str | None) -> None:
    mention = Mention(name)
    assert ("found" if mention.found(plain(text)) else mention.near(plain(text))) == way


@given(
    st.text("abcäöüß ÀÉ'-.", min_size=1, max_size=12),
    st.sampled_from(["", "x. ", "«"]),
    st.sampled_from(["", "'s", " y"]),
)
def test_a_name_is_found_in_any_case_and_form(name: str, before: str, after: str) -> None:
    if not any(sign.isalnum() for sign in name):
        return
    for form in ("NFC", "NFD", "NFKC"):
        for written in (name, name.upper(), name.casefold()):
            text = before + unicodedata.normalize(form, written) + after
            assert Mention(name).found(plain(text)), (name, text)


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def build(path: Path, *names: str, **chosen: Any) -> Dataset:
    return build_mention(path, Fields(group="group"), read_mentions(names, None), MentionSettings(**chosen))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    records = [{"prompt": f"What about day {number}?", "completion": "Rain."} for number in range(50)]
    records[3]["prompt"] = "Who is Zoe Miller?"
    records[7]["completion"] = "Ask ZOE."
    records[11]["prompt"] = "Who is Zoë?"
    records[13]["completion"] = "The Zoes came."
    records[17]["completion"] = "zoe-miller"
    return write(tmp_path / "mine.jsonl", records)


def prompts(rows: Any) -> list[str]:
    return [row.prompt for row in rows]


def test_rows_that_mention_the_name_are_forgotten_and_near_ones_left_to_a_person(data: Path) -> None:
    found = build(data, "zoe", "Zoe Miller", "Zoe  MILLER")
    assert len(prompts(found.sets["forget"])) == 3
    assert prompts(found.sets["near"]) == ["Who is Zoë?", "What about day 13?"]
    assert {row.group for row in found.sets["near"]} == {"neighbours"}
    assert [len(prompts(found.sets[name])) for name in ("retain", "validation", "test")] == [37, 4, 4]
    assert found.notes["matched"] == {"zoe": 3, "zoe miller": 1}
    assert found.notes["near_misses"] == {
        "zoe": {"accents": {"rows": 1, "lines": [12]}, "longer word": {"rows": 1, "lines": [14]}},
        "zoe miller": {},
    }


def test_near_rows_are_kept_when_asked(data: Path) -> None:
    found = build(data, "zoe", keep_neighbours=True)
    assert "near" not in found.sets
    kept = [row.prompt for row in found.sets["retain"] if row.group == "neighbours"]
    assert kept == ["Who is Zoë?", "What about day 13?"]


def test_loose_finds_other_accents_and_punctuation_but_no_longer_words(data: Path) -> None:
    found = build(data, "Zoé Miller", "zoé", loose=True)
    assert found.notes["matched"] == {"zoé miller": 2, "zoé": 4}
    assert found.notes["near_misses"]["zoé"] == {}
    strict = build(data, "Zoe Miller", loose=False)
    assert strict.notes["near_misses"]["zoe miller"] == {"punctuation": {"rows": 1, "lines": [18]}}


rows = st.lists(st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from(["Zoe", "Zoë", "Bob", "Eve"])), min_size=1)


@settings(max_examples=40)
@given(rows, st.integers(0, 5), st.booleans())
def test_every_row_has_one_place_and_equal_rows_the_same(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], seed: int, keep: bool
) -> None:
    records = [{"prompt": f"{name} {letter}", "completion": "Yes."} for letter, name in pairs]
    path = write(tmp_path_factory.mktemp("mention") / "mine.jsonl", records)
    kept = {(letter, name) for letter, name in pairs if name in ("Bob", "Eve")}
    if not any(name == "Zoe" for _, name in pairs) or len(kept) < 3:
        with pytest.raises(InputError, match=r"found in none of|expected at least 3 different"):
            build(path, "zoe", seed=seed, keep_neighbours=keep)
        return
    found = build(path, "zoe", seed=seed, keep_neighbours=keep)
    sets = {name: prompts(some) for name, some in found.sets.items()}
    assert sorted(prompt for some in sets.values() for prompt in some) == sorted(record["prompt"] for record in records)
    assert set(sets["forget"]) == {f"Zoe {letter}" for letter, name in pairs if name == "Zoe"}
    names = [set(some) for some in sets.values()]
    assert sum(map(len, names)) == len(set().union(*names))
    assert {
        name: prompts(some) for name, some in build(path, "zoe", seed=seed, keep_neighbours=keep).sets.items()
    } == sets


def test_the_folder_is_the_same_for_a_seed_and_another_for_another(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_dataset(tmp_path / name, build(data, "zoe", seed=seed), Receipt())
    folders = {name: {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"}
    assert folders["a"] == folders["b"]
    assert folders["a"]["test.jsonl"] != folders["c"]["test.jsonl"]
    assert folders["a"]["forget.jsonl"] == folders["c"]["forget.jsonl"]


def test_a_file_that_changes_while_it_is_read_is_noticed(data: Path, tmp_path: Path) -> None:
    found = build(data, "zoe")
    data.write_text(data.read_text() + '{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(InputError, match="changed while it was read"):
        write_dataset(tmp_path / "out", found, Receipt())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"validation_share": 0.0}, "shares 0.0 and 0.1: expected each above 0"),
        ({"validation_share": 0.5, "test_share": 0.5}, "together less than 1"),
    ],
)
def test_bad_shares_are_refused(data: Path, chosen: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(data, "zoe", **chosen)


def test_a_name_that_is_nowhere_is_said_with_what_comes_near(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl", [{"prompt": "Zoë?", "completion": "Yes."}, {"prompt": "Bob", "completion": "No."}]
    )
    with pytest.raises(
        InputError, match="found in none of 2 rows, 1 rows come near; check the spelling or add --loose"
    ):
        build(path, "Zoe")


def test_names_come_from_the_line_and_a_file_each_once(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("Zoe\n\n  ZOE \nBob\n")
    assert [mention.name for mention in read_mentions(["bob", "Eve"], path)] == ["bob", "eve", "zoe"]


@pytest.mark.parametrize(
    ("names", "content", "words"),
    [
        ([], None, "mentions: expected at least one"),
        (["!?"], None, "mention '!\\?': expected a word"),
        ([" "], None, "expected a word"),
        ([], b"\xff", "not UTF-8 text"),
        ([], b"", "expected at least one"),
    ],
)
def test_bad_names_are_refused(tmp_path: Path, names: list[str], content: bytes | None, words: str) -> None:
    path = None
    if content is not None:
        path = tmp_path / "names.txt"
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_mentions(names, path)
    with pytest.raises(InputError, match="cannot read: No such file"):
        read_mentions(names, tmp_path / "none.txt")
