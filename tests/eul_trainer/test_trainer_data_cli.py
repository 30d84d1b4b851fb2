"""`eul-train data`: every builder from the command line, and the one line that bad input gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eul_trainer.cli.main import run
from eul_trainer.records import digest_rows, read_rows
from eul_trainer.request import read_requests

RunTrainer = Callable[..., dict[str, Any]]
NEEDED = {"forget.jsonl", "retain.jsonl", "validation.jsonl", "test.jsonl", "request.jsonl"}


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def parquet(path: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


def samsum(path: Path) -> None:
    import zipfile

    import pyarrow
    import pyarrow.ipc

    with zipfile.ZipFile(path, "w") as file:
        for split in ("train", "validation", "test"):
            records = [{"id": str(n), "dialogue": f"P{n}: Hello {split}", "summary": f"P{n} greets."} for n in range(9)]
            table = pyarrow.Table.from_pylist(records)
            with file.open(f"s/{split}/x.arrow", "w") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """One small source of each form."""
    folder = tmp_path / "sources"
    questions = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(20 * 14)]
    write(folder / "tofu" / "full.json", questions)
    for name, size in (("train", 40), ("validation", 8), ("test", 8)):
        reviews = [
            {"id": str(n), "text": f"{name} {n}", "label": ("neg", "pos")[n % 2], "title_id": f"tt{n // 4}{name}"}
            for n in range(size)
        ]
        parquet(folder / "imdb" / f"imdb-{name}.parquet", reviews)
    samsum(folder / "samsum.zip")
    for name in ("forget", "retain"):
        documents = [
            {"id": f"{name}{n}qa0", "input": f"{name} {n}?", "output": "Yes.", "task": "Task2"} for n in range(9)
        ]
        write(folder / "lume" / f"{name}.jsonl", documents)
    write(
        folder / "mine.jsonl", [{"q": f"Is {name} {n} there?", "a": "No."} for n in range(9) for name in ("Zoe", "Bob")]
    )
    return folder


LINES: dict[str, list[str]] = {
    "tofu": ["--from", "tofu", "--authors", "9", "--requests", "2"],
    "imdb": ["--from", "imdb", "--share", "0.1", "--max-words", "20", "--limit", "5"],
    "samsum": ["--from", "samsum.zip", "--speakers", "P1,p2"],
    "lume": ["--from", "lume", "--task", "Task2", "--documents", "2"],
    "people": ["--people", "8", "--forget", "2", "--locale", "fr_FR"],
    "mention": ["--rows", "mine.jsonl", "--prompt-field", "q", "--completion-field", "a", "--mention", "zoe"],
}


def line(name: str, sources: Path, out: Path) -> list[str]:
    """The command line of a builder, with its sources in their folder."""
    words = [str(sources / word) if (sources / word).exists() else word for word in LINES[name]]
    return ["data", name, *words, "--out", str(out), "--seed", "4", "--received", "2026-11-24", "--reason", "erasure"]


@pytest.mark.parametrize("name", LINES)
def test_every_builder_writes_the_same_folder_again(
    name: str, sources: Path, tmp_path: Path, trainer: RunTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    record = trainer(*line(name, sources, tmp_path / "a"))
    assert run(line(name, sources, tmp_path / "b")) == 0
    said = capsys.readouterr().out
    assert f"forget {record['files']['forget.jsonl']['rows']}" in said
    folders = [{path.name: path.read_bytes() for path in (tmp_path / part).iterdir()} for part in "ab"]
    assert folders[0] == folders[1]
    assert set(folders[0]) >= NEEDED | {"digests.json"}
    assert set(record["files"]) | {"digests.json"} == set(folders[0])
    assert record["settings"]["seed"] == 4
    assert bool(record["sources"]) == (name != "people")
    assert all(str(tmp_path).encode() not in data for data in folders[0].values())
    (request,) = read_requests(tmp_path / "a" / "request.jsonl")
    assert request.digest == digest_rows(read_rows(tmp_path / "a" / "forget.jsonl"))
    assert (request.received, request.reason) == ("2026-11-24", "erasure")
    forget, retain = (
        {row.prompt for row in read_rows(tmp_path / "a" / f"{part}.jsonl")} for part in ("forget", "retain")
    )
    assert not forget & retain


BAD: list[tuple[str, list[str], str]] = [
    ("tofu", ["--split", "forget07"], "split 'forget07': expected one of forget01, forget05, forget10"),
    ("imdb", ["--share", "2"], "share 2.0: expected more than 0 and less than 1"),
    ("samsum", ["--speakers", "Nobody"], "speaker 'nobody': not in the training conversations"),
    ("lume", ["--task", "Task7"], "no task 'Task7'; it has Task2"),
    ("people", ["--forget", "8"], "retained people: expected at least 2"),
    ("mention", ["--prompt-field", "question"], "missing field 'question'; the row has a, q"),
    ("mention", ["--received", "today"], "expected a day as YYYY-MM-DD, found 'today'"),
]


@pytest.mark.parametrize(("name", "more", "words"), BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(
    name: str, more: list[str], words: str, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*line(name, sources, tmp_path / "out"), *more]) == 2
    said = capsys.readouterr().err.splitlines()
    errors = [text for text in said if text.startswith("eul-train: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


def test_rows_taken_out_are_said(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = sources / "tofu" / "full.json"
    lines = full.read_text().splitlines(keepends=True)
    full.write_text("".join([lines[0], lines[1], lines[2]] * 6 + [lines[0], lines[1]]) * 14)
    assert run(["data", "tofu", "--from", str(full.parent), "--out", str(tmp_path / "out")]) == 2
    assert "retain.jsonl: expected at least one row" in capsys.readouterr().err
    full.write_text("".join([*lines[:20], lines[0], *lines[21:]]))
    for seed in range(30):
        out = tmp_path / f"out{seed}"
        assert run(["data", "tofu", "--from", str(full.parent), "--out", str(out), "--seed", str(seed)]) == 0
        if "rows out of retain.jsonl that are to be forgotten" in capsys.readouterr().err:
            return
    pytest.fail("no seed forgot the author whose first row another author has too")


def test_earlier_requests_are_kept_nowhere(sources: Path, tmp_path: Path, trainer: RunTrainer) -> None:
    rows = ["data", "mention", *line("mention", sources, tmp_path / "x")[2:8]]
    first = trainer(*rows, "--mention", "Zoe 3", "--mention", "Bob 5", "--out", tmp_path / "first")
    earlier = tmp_path / "first" / "request.jsonl"
    second = trainer(*rows, "--mention", "Bob 2", "--out", tmp_path / "second", "--earlier", earlier)
    (request,) = read_requests(earlier)
    assert first["earlier"] == []
    assert second["earlier"] == [{"id": request.id, "digest": request.digest}]
    assert sum(second["notes"]["removed"].values()) == 2
    kept = [
        row for name in ("retain", "validation", "test") for row in read_rows(tmp_path / "second" / f"{name}.jsonl")
    ]
    assert len(kept) == 15
    assert not {row.prompt for row in kept} & {"Is Zoe 3 there?", "Is Bob 5 there?"}


def test_an_output_in_use_is_refused_before_a_source_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("")
    assert run(["data", "imdb", "--from", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "expected a new or empty directory" in capsys.readouterr().err


def test_help_names_every_builder_and_is_quick_to_import(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in LINES)
    for name in LINES:
        assert run(["data", name, "--help"]) == 0
        assert f"eul-train data {name} " in capsys.readouterr().out
