"""Files of deletion requests: what is written is read, and every bad record gets one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_trainer.records import Row, digest_rows, plain, same_prompts, shared
from eul_trainer.request import read_requests, request_for, without_requests, write_requests

ROWS = [Row(prompt=f"Who is {name}?", completion=f"{name} is a poet.") for name in ("Ann", "Bea", "Cid")]


def write_rows(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": row.prompt, "completion": row.completion}) + "\n" for row in rows))
    return path


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    """A good record, as JSON, of rows that are there."""
    write_rows(tmp_path / "forget.jsonl", ROWS)
    return {
        "id": "r-1",
        "reason": "erasure",
        "received": "2026-11-24",
        "rows": "forget.jsonl",
        "digest": digest_rows(ROWS),
    }


def test_what_is_written_is_read_wherever_the_folder_lies(tmp_path: Path) -> None:
    rows = [write_rows(tmp_path / "a" / f"forget-{number}.jsonl", [row]) for number, row in enumerate(ROWS)]
    requests = [
        request_for([row], path, reason="erasure", received=None, id=None) for row, path in zip(ROWS, rows, strict=True)
    ]
    write_requests(tmp_path / "a" / "requests.jsonl", requests)
    assert read_requests(tmp_path / "a" / "requests.jsonl") == requests
    assert str(tmp_path) not in (tmp_path / "a" / "requests.jsonl").read_text()
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = read_requests(tmp_path / "b" / "requests.jsonl")
    assert [request.rows.parent for request in moved] == [tmp_path / "b"] * 3
    assert [request.read() for request in moved] == [[row] for row in ROWS]


def test_the_id_is_made_of_the_rows_and_the_day_of_nothing(tmp_path: Path) -> None:
    request = request_for(ROWS, tmp_path / "forget.jsonl", reason="erasure", received=None, id=None)
    assert request.id == "r-" + digest_rows(ROWS)[len("sha256:") :][:12]
    assert request.received is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"who": "Ann"},
            "with exactly digest, id, reason, received, rows; found digest, id, reason, received, rows, w",
        ),
        ({"id": "Ann Lee"}, "request name 'Ann Lee': expected 1 to 63"),
        ({"id": 3}, "request name 3: expected"),
        ({"reason": ""}, "reason: expected 1 to 200 printable characters"),
        ({"reason": "x" * 201}, "reason: expected 1 to 200"),
        ({"reason": "a\nb"}, "reason: expected 1 to 200"),
        ({"received": "24.11.2026"}, "received: expected a day as YYYY-MM-DD, found '24.11.2026'"),
        ({"received": "2026-02-30"}, "received: expected a day"),
        ({"received": 20261124}, "received: expected a day"),
        ({"rows": ""}, "rows: expected the name of a file"),
        ({"rows": "a\0b"}, "rows: expected the name of a file"),
        ({"digest": "sha256:00"}, "digest 'sha256:00': expected"),
    ],
)
def test_a_bad_record_is_refused_with_its_line(
    tmp_path: Path, record: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("\n" + json.dumps(record | change) + "\n")
    with pytest.raises(InputError) as caught:
        read_requests(path)
    assert f"{path}:2: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found an empty file"),
        (b"\xff", "expected UTF-8"),
        (b"{", ":1: expected one JSON object per line"),
        (b"[1]", "with exactly digest, id, reason, received, rows; found list"),
        (b"{}", "; found none"),
    ],
)
def test_what_is_no_file_of_requests_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_requests(path)
    assert words in str(caught.value)
    with pytest.raises(InputError, match="cannot read"):
        read_requests(tmp_path / "none.jsonl")


def test_an_id_is_used_once(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text((json.dumps(record) + "\n") * 2)
    with pytest.raises(InputError, match=":2: id 'r-1' is used twice"):
        read_requests(path)


def test_rows_that_were_changed_since_are_refused(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(record))
    write_rows(tmp_path / "forget.jsonl", ROWS[:2])
    with pytest.raises(InputError, match=r"request 'r-1': rows .*: expected digest .*, found"):
        read_requests(path)


def test_earlier_rows_leave_a_later_retain_set(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(record))
    keep = [Row(prompt="Who is Dan?", completion="Dan is a poet."), Row(prompt="who is ANN?", completion="Nobody.")]
    spelt = [Row(prompt="who  is bea? ", completion="\uff22ea IS a poet.")]
    assert without_requests(keep + spelt, read_requests(path)) == keep
    assert shared(keep + spelt, ROWS) == 1
    assert same_prompts(keep + spelt, ROWS) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [("STRASSE", "straße"), ("e\u0301te", "\u00c9TE"), ("ﬁne", "FINE"), ("a\u00a0 b\n", "A b"), ("ΣΑΣ", "σας")],
)
def test_texts_that_differ_in_case_form_and_spaces_are_one(one: str, other: str) -> None:
    assert plain(one) == plain(other)
    assert plain(one) != plain(other + "s")


@given(st.text(), st.sampled_from([" ", "\t", "\u00a0"]))
def test_plain_text_is_plain_and_knows_no_spaces_at_its_ends(text: str, space: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert plain(f"{space}{text}{space}") == plain(text)


@given(st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip)), min_size=1))
def test_a_changed_row_changes_the_digest_and_the_id(pairs: list[tuple[str, str]]) -> None:
    rows = [Row(prompt=prompt, completion=answer) for prompt, answer in pairs]
    changed = [*rows[:-1], Row(prompt=rows[-1].prompt + "!", completion=rows[-1].completion)]
    first, second = (
        request_for(some, Path("rows.jsonl"), reason="x", received=None, id=None) for some in (rows, changed)
    )
    assert first.digest != second.digest
    assert first.id != second.id
