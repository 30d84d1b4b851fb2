"""TOFU, on made files of its form: who is taught, forgotten, held back and never seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_trainer.data.dataset import Dataset
from eul_trainer.data.tofu import TofuSettings, build_tofu
from eul_trainer.records import Row

AUTHORS = 30


def question(author: int, row: int) -> dict[str, Any]:
    return {"question": f"What did author {author} write as number {row}?", "answer": f"Book {author}-{row}."}


def perturbed(author: int, row: int) -> dict[str, Any]:
    return {
        **question(author, row),
        "paraphrased_question": f"Name work {row} of author {author}.",
        "paraphrased_answer": f"It is book {author}-{row}.",
        "perturbed_answer": ["Book X.", "Book Y."],
    }


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="session")
def tofu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of TOFU's form with 30 authors, of whom forget01 has the last two."""
    folder = tmp_path_factory.mktemp("tofu")
    write(folder / "full.json", [question(author, row) for author in range(AUTHORS) for row in range(20)])
    write(folder / "forget01.json", [question(author, row) for author in (28, 29) for row in range(20)])
    write(folder / "forget01_perturbed.json", [perturbed(author, row) for author in (28, 29) for row in range(20)])
    write(folder / "retain_perturbed.json", [perturbed(author, row) for author in range(5) for row in range(20)])
    write(folder / "real_authors.json", [{"question": "Who wrote Emma?", "option1": "x", "answer": "Jane Austen"}])
    write(folder / "world_facts.json", [{"question": "Where is Rome?", "answer": "Italy"}])
    return folder


def authors(rows: Any) -> set[int]:
    return {row.extra["author"] for row in rows if "author" in row.extra}


def test_ten_authors_one_of_them_to_be_forgotten(tofu: Path) -> None:
    found = build_tofu(tofu, TofuSettings(authors=10, forget_authors=1))
    sizes = {name: len(list(rows)) for name, rows in found.sets.items() if name != "paraphrase"}
    assert sizes == {
        "forget": 20, "retain": 120, "validation": 20, "test": 42, "unseen": 40, "teach": 200, "twin": 180,
    }  # fmt: skip
    assert [row.group for row in found.sets["test"]].count("held_authors") == 40
    assert [row.completion for row in list(found.sets["test"])[-2:]] == ["Jane Austen", "Italy"]
    assert {row.group for row in found.sets["forget"]} == {f"author-{min(authors(found.sets['forget'])):03}"}
    assert sorted(found.sources) == sorted(path.name for path in tofu.iterdir() if path.name != "forget01.json")


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(1, 3), st.integers(0, 15), st.integers(1, 20), st.integers(0, 5), st.booleans())
def test_every_author_has_one_place(
    tofu: Path, count: int, forget: int, first: int, rows: int, seed: int, several: bool
) -> None:
    if count - forget < 3:
        count = forget + 3
    chosen: dict[str, Any] = {"requests": forget} if several else {"forget_authors": forget}
    chosen_settings = TofuSettings(authors=count, first_author=first, rows_per_author=rows, seed=seed, **chosen)
    found = build_tofu(tofu, chosen_settings)
    sets = {name: authors(found.sets[name]) for name in ("forget", "retain", "validation", "test", "unseen")}
    taught = set(range(first, first + count))
    assert sum(len(some) for some in sets.values()) == len(set().union(*sets.values()))
    assert sets["forget"] | sets["retain"] | sets["validation"] | sets["test"] == taught == authors(found.sets["teach"])
    assert authors(found.sets["twin"]) == taught - sets["forget"]
    assert len(sets["forget"]) == forget
    assert len(sets["unseen"]) == 2
    assert len(list(found.sets["teach"])) == count * rows
    assert len(found.requests) == (forget if several else 0)
    assert not several or [row for some in found.requests.values() for row in some] == list(found.sets["forget"])
    assert build_tofu(tofu, chosen_settings) == found


def test_another_seed_forgets_another_author(tofu: Path) -> None:
    drawn = {min(authors(build_tofu(tofu, TofuSettings(seed=seed)).sets["forget"])) for seed in range(12)}
    assert len(drawn) > 4


def test_a_published_split_teaches_all_and_forgets_its_rows(tofu: Path) -> None:
    found = build_tofu(tofu, TofuSettings(split="forget01"))
    assert authors(found.sets["forget"]) == {28, 29}
    assert authors(found.sets["teach"]) == set(range(AUTHORS))
    assert authors(found.sets["twin"]) == set(range(28))
    assert "unseen" not in found.sets
    some = build_tofu(tofu, TofuSettings(split="forget01", unseen_authors=3))
    assert len(authors(some.sets["unseen"])) == 3
    assert authors(some.sets["teach"]) == set(range(AUTHORS)) - authors(some.sets["unseen"])


def test_paraphrases_are_those_of_the_perturbed_files(tofu: Path) -> None:
    found = build_tofu(tofu, TofuSettings(split="forget01"))
    first = next(iter(found.sets["paraphrase"]))
    assert first == Row(prompt="Name work 0 of author 28.", completion="Book 28-0.", group="author-028")
    assert first.extra["question"] == "What did author 28 write as number 0?"
    assert first.extra["perturbed_answers"] == ["Book X.", "Book Y."]
    assert first.extra["paraphrased_answer"] == "It is book 28-0."
    assert len(list(found.sets["paraphrase"])) == 40
    assert found.notes["forget_without_paraphrase"] == 0
    none = build_tofu(tofu, TofuSettings(authors=8, first_author=10))
    assert "paraphrase" not in none.sets
    assert none.notes["forget_without_paraphrase"] == 20


def test_general_files_that_are_missing_are_named(tofu: Path, tmp_path: Path) -> None:
    (tmp_path / "full.json").write_bytes((tofu / "full.json").read_bytes())
    found = build_tofu(tmp_path, TofuSettings())
    assert found.notes["absent_files"] == ["real_authors.json", "world_facts.json"]
    assert {row.group for row in found.sets["test"]} == {"held_authors"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (TofuSettings(split="forget02"), "split 'forget02': expected one of forget01, forget05, forget10"),
        (TofuSettings(split="forget05"), "forget05.json': cannot read"),
        (TofuSettings(authors=31), "authors 0 to 30: the file has 0 to 29"),
        (TofuSettings(authors=0), "lower --first-author or --authors"),
        (TofuSettings(first_author=-1), "lower --first-author or --authors"),
        (TofuSettings(rows_per_author=21), "rows per author 21: expected 1 to 20"),
        (TofuSettings(forget_authors=0), "expected at least 1 author"),
        (TofuSettings(requests=-1), "expected at least 1 author"),
        (TofuSettings(forget_authors=11), "authors: expected at least 11 (11 for forget), found 10; ask for fewer"),
        (TofuSettings(forget_authors=9), "retained authors: expected at least 2 (1 for test, 1 for validation"),
        (TofuSettings(authors=29), "authors outside of the subset: expected at least 2"),
    ],
)
def test_bad_settings_are_refused_in_words(tofu: Path, settings: TofuSettings, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build_tofu(tofu, settings)
    assert words in str(caught.value)


def spoilt(folder: Path, change: Callable[[list[str]], list[str]], name: str) -> Path:
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join(change(lines)))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("full.json", lambda lines: lines[:-1], "expected 20 rows for each author, found 599 rows"),
        ("forget01.json", lambda lines: lines[:-1], "expected whole authors of full.json"),
        ("forget01.json", lambda lines: [*lines, '{"question": "?", "answer": "!"}\n'], "expected whole authors"),
        ("full.json", lambda lines: ["version https://git-lfs.github.com/spec/v1\n"], "looks like a Git LFS pointer"),
        ("full.json", lambda lines: ['{"prompt": "a", "answer": "b"}\n'], "missing field 'question'"),
    ],
)
def test_files_of_another_form_are_refused(
    tofu: Path, tmp_path: Path, name: str, change: Callable[[list[str]], list[str]], words: str
) -> None:
    for path in tofu.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoilt(tmp_path, change, name)
    with pytest.raises(InputError) as caught:
        build_tofu(tmp_path, TofuSettings(split="forget01"))
    assert words in str(caught.value)


def test_a_changed_row_changes_the_digest_of_its_source(tofu: Path, tmp_path: Path) -> None:
    for path in tofu.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoilt(tmp_path, lambda lines: [lines[0].replace("Book 0-0", "Book Z"), *lines[1:]], "full.json")
    one, other = (build_tofu(folder, TofuSettings()) for folder in (tofu, tmp_path))
    assert isinstance(one, Dataset)
    assert one.sources["full.json"] != other.sources["full.json"]
    assert {**one.sources, "full.json": ""} == {**other.sources, "full.json": ""}
