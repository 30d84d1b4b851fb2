"""Data files: what is read, and the one line that every bad file gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_trainer.records import Fields, Row, digest_rows, read_rows, without


def test_reads_rows_and_passes_over_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "Who?", "a": "Me.", "group": "near"}\n\n{"q": "What?", "a": "That.", "more": 1}\r\n')
    rows = read_rows(path, Fields(prompt="q", completion="a", group="group"))
    assert rows == [Row(prompt="Who?", completion="Me.", group="near"), Row(prompt="What?", completion="That.")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found an empty file"),
        (b"\n \n", "found an empty file"),
        (b"\xff\xfe", "expected UTF-8"),
        (b'{"prompt": "a", "completion": "b"}\nnot json\n', ":2: expected one JSON object per line"),
        (b"[1, 2]\n", ":1: expected a JSON object, found list"),
        (
            b'{"prompt": "a"}\n',
            ":1: missing field 'completion'; the row has prompt; name another with --completion-field",
        ),
        (b'{"prompt": 3, "completion": "b"}\n', ":1: field 'prompt': expected text, found int"),
        (b'{"prompt": "a", "completion": "  "}\n', ":1: field 'completion': expected text"),
        (b"[" * 100_000 + b"\n", ":1: expected one JSON object per line"),
    ],
)
def test_refuses_bad_files_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_rows(path, Fields())
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_refuses_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "nothing.jsonl"
    with pytest.raises(InputError, match="cannot read"):
        read_rows(path, Fields())


def test_rows_to_forget_are_taken_out_whatever_their_case_and_spaces() -> None:
    keep = [Row(prompt="Who  wrote it?", completion="A Poet."), Row(prompt="Who wrote it?", completion="B.")]
    assert without(keep, [Row(prompt="who wrote it? ", completion="a poet.")]) == keep[1:]


texts = st.text(min_size=1).filter(str.strip)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_what_is_written_is_read_and_has_the_same_digest(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps({"x": prompt, "y": answer}) + "\n" for prompt, answer in pairs))
    rows = read_rows(path, Fields(prompt="x", completion="y"))
    assert [(row.prompt, row.completion) for row in rows] == pairs
    assert digest_rows(rows) == digest_rows([Row(prompt=prompt, completion=answer) for prompt, answer in pairs])
