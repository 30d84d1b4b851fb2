"""Made-up people, and LUME on made rows of its schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_trainer.data.lume import LumeSettings, build_lume
from eul_trainer.data.people import PeopleSettings, build_people
from eul_trainer.data.people_facts import FACTS
from eul_trainer.data.persons import make_people
from eul_trainer.records import Row


def persons(rows: Any) -> set[int]:
    return {row.extra["person"] for row in rows}


def test_every_fact_has_wordings_that_are_taught_and_others_that_are_not() -> None:
    for fact in FACTS:
        assert fact.questions
        assert fact.paraphrases
        assert not set(fact.questions) & set(fact.paraphrases)
        for wording in (*fact.questions, *fact.paraphrases, fact.answer):
            assert "{name}" in wording
        assert "{value}" in fact.answer
    assert len({fact.key for fact in FACTS}) == len(FACTS)


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(3, 12), st.integers(0, 3), st.integers(1, 9), st.integers(0, 9), st.booleans())
def test_every_person_has_one_place(forget: int, more: int, unseen: int, facts: int, seed: int, several: bool) -> None:
    chosen: dict[str, Any] = {"requests": forget} if several else {"forget": forget}
    given = PeopleSettings(people=forget + more, unseen=unseen, facts=facts, seed=seed, **chosen)
    found = build_people(given)
    sets = {name: persons(found.sets.get(name, ())) for name in ("forget", "retain", "validation", "test", "unseen")}
    assert sorted(number for some in sets.values() for number in some) == list(range(forget + more + unseen))
    assert len(sets["forget"]) == forget
    assert len(sets["unseen"]) == unseen
    assert persons(found.sets["teach"]) == set(range(forget + more))
    assert persons(found.sets["twin"]) == set(range(forget + more)) - sets["forget"]
    assert len(list(found.sets["teach"])) == 2 * facts * (forget + more)
    assert persons(found.sets["paraphrase"]) == sets["forget"]
    assert not {row.prompt for row in found.sets["paraphrase"]} & {row.prompt for row in found.sets["teach"]}
    assert {row.completion for row in found.sets["paraphrase"]} == {row.completion for row in found.sets["forget"]}
    assert [row for rows in found.requests.values() for row in rows] == (list(found.sets["forget"]) if several else [])
    assert build_people(given) == found


def test_the_records_are_nobodys() -> None:
    people = make_people(200, "en_US", 0)
    assert len({person["name"] for person in people}) == 200
    assert len({person["email"] for person in people}) == 200
    for person in people:
        assert re.fullmatch(r"[a-z.]+\.\d+@example\.(org|com|net)", person["email"])
        assert re.fullmatch(r"\+1 [2-9]\d\d 555 01\d\d", person["phone"])
        assert re.fullmatch(r"\d{1,2} [A-Z][a-z]+ (19[3-9]\d|200[0-5])", person["birth_date"])


def test_the_value_of_a_fact_stands_in_its_answer() -> None:
    found = build_people(PeopleSettings())
    for row in [*found.sets["teach"], *found.sets["paraphrase"]]:
        assert row.extra["value"] in row.completion
        assert "{" not in row.prompt + row.completion
    assert found.settings["faker"]


def test_seed_and_locale_make_other_people() -> None:
    names = {
        (locale, seed): make_people(3, locale, seed)[0]["name"] for locale in ("en_US", "ja_JP") for seed in (0, 1)
    }
    assert len(set(names.values())) == 4
    assert make_people(9, "de_DE", 3)[:4] == make_people(4, "de_DE", 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (PeopleSettings(locale="en_ZZ"), "locale 'en_ZZ': faker has none of this name; it has en"),
        (PeopleSettings(locale="??"), "it has en_US, de_DE, fr_FR and others"),
        (PeopleSettings(facts=0), "facts 0: expected 1 to 9"),
        (PeopleSettings(facts=10), "facts 10: expected 1 to 9"),
        (PeopleSettings(people=0), "expected at least 1 person to be taught"),
        (PeopleSettings(unseen=-1), "expected at least 1 person to be taught"),
        (PeopleSettings(people=5, forget=6), "people: expected at least 6 (6 for forget), found 5"),
        (PeopleSettings(people=5, forget=4), "retained people: expected at least 2"),
    ],
)
def test_bad_settings_are_refused(given: PeopleSettings, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build_people(given)
    assert words in str(caught.value)


def lume_rows(prefix: str, documents: int, task: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{prefix}-{number}{suffix}", "input": f"{prefix} {number} {suffix}?", "output": "Yes.", "task": task}
        for number in range(documents)
        for suffix in ("sc1", "qa0", "qa1")
    ]


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def lume(tmp_path: Path) -> Path:
    write(tmp_path / "forget.jsonl", lume_rows("fa", 4, "Task1") + lume_rows("fb", 3, "Task2"))
    write(tmp_path / "retain.jsonl", lume_rows("ra", 10, "Task1") + lume_rows("rb", 10, "Task2"))
    return tmp_path


def documents(rows: Any) -> set[str]:
    return {row.extra["id"][:-3] for row in rows}


def test_documents_stay_whole(lume: Path) -> None:
    found = build_lume(lume, LumeSettings())
    assert len(list(found.sets["forget"])) == 21
    sizes = {name: len(documents(found.sets[name])) for name in ("retain", "validation", "test")}
    assert sizes == {"retain": 14, "validation": 2, "test": 4}
    assert all(len(list(found.sets[name])) == 3 * size for name, size in sizes.items())
    assert len(set().union(*(documents(found.sets[name]) for name in sizes))) == 20
    assert len(list(found.sets["teach"])) == 81
    assert documents(found.sets["twin"]).isdisjoint(documents(found.sets["forget"]))
    assert build_lume(lume, LumeSettings()) == found
    assert build_lume(lume, LumeSettings(seed=1)).sets["test"] != found.sets["test"]


def test_the_suffix_of_an_id_is_its_kind(lume: Path) -> None:
    found = build_lume(lume, LumeSettings(tasks=("Task2",)))
    assert {row.group for row in found.sets["teach"]} == {"Task2"}
    rows = [row for row in found.sets["forget"] if row.extra["id"].startswith("fb-0")]
    assert rows[0] == Row(prompt="fb 0 sc1?", completion="Yes.", group="Task2")
    assert [row.extra["kind"] for row in rows] == ["completion", "question", "question"]


def test_requests_share_no_document(lume: Path) -> None:
    found = build_lume(lume, LumeSettings(documents=5, requests=2))
    parts = [documents(rows) for rows in found.requests.values()]
    assert [len(part) for part in parts] == [3, 2]
    assert parts[0] | parts[1] == documents(found.sets["forget"])
    assert len(list(found.sets["forget"])) == 15


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (LumeSettings(tasks=("Task9",)), "forget.jsonl: no task 'Task9'; it has Task1, Task2"),
        (LumeSettings(documents=8), "documents: expected at least 8 (8 for forget), found 7"),
        (LumeSettings(documents=0), "expected 1 to 0"),
        (LumeSettings(requests=8), "requests 8: expected 1 to 7"),
        (LumeSettings(test_share=0), "expected each above 0 and together less than 1"),
        (LumeSettings(test_share=0.9), "expected each above 0 and together less than 1"),
    ],
)
def test_bad_lume_settings_are_refused(lume: Path, given: LumeSettings, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build_lume(lume, given)
    assert words in str(caught.value)


ROW = {"id": "x-1qa0", "input": "Who?", "output": "Me.", "task": "Task1"}


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([ROW, ROW], ":2: id 'x-1qa0' is used twice"),
        ([{**ROW, "id": "x-1"}], ":1: id 'x-1': expected a document and a suffix such as sc1 or qa0"),
        ([{**ROW, "id": "qa0"}], "expected a document and a suffix"),
        (
            [{"id": "x-1qa0", "input": "Who?", "task": "Task1"}],
            ":1: missing field 'output'; the row has id, input, task; add it",
        ),
        ([{**ROW, "input": 3}], ":1: field 'input': expected text, found int"),
        ([{**ROW, "id": "fa-0qa7"}], "1 documents are in forget.jsonl and in retain.jsonl, such as 'fa-0'"),
    ],
)
def test_bad_lume_rows_are_refused(lume: Path, records: list[dict[str, Any]], words: str) -> None:
    write(lume / "retain.jsonl", records)
    with pytest.raises(InputError) as caught:
        build_lume(lume, LumeSettings())
    assert words in str(caught.value)
