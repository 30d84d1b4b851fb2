"""`fit` and requests: the id comes from the record, and earlier requests' rows leave the retain set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import InputError
from eul_serve.format import read_bundle
from eul_trainer.cli.main import run
from eul_trainer.records import Row, read_rows
from eul_trainer.request import request_for, request_of, retained, write_requests

RunTrainer = Callable[..., dict[str, Any]]
FAST = ("--steps", "1", "--rank", "4", "--refusal", "")


@pytest.fixture
def requests(data: Path, tmp_path: Path) -> Path:
    """A file with a request for second.jsonl and one for first.jsonl."""
    records = [
        request_for(
            read_rows(data / f"{name}.jsonl"), data / f"{name}.jsonl", reason="x", received=None, id=f"r-{name}"
        )
        for name in ("second", "first")
    ]
    write_requests(tmp_path / "requests.jsonl", records)
    return tmp_path / "requests.jsonl"


def test_the_manifest_names_the_id_and_the_digest_and_no_more(
    tiny_model: Path, data: Path, requests: Path, tmp_path: Path, trainer: RunTrainer
) -> None:
    arguments = ["--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl"]
    trainer("fit", *arguments, "--out", tmp_path / "layer", "--request-file", requests, *FAST)
    (request,) = read_bundle(tmp_path / "layer").manifest.requests
    assert request.id == "r-first"
    assert request.data == request_of(requests, read_rows(data / "first.jsonl")).digest
    written = json.loads((tmp_path / "layer" / "manifest.json").read_text())["requests"]
    assert [sorted(entry) for entry in written] == [["data", "id", "units"]]


def test_earlier_rows_are_taken_out_of_the_retain_set(
    tiny_model: Path, data: Path, requests: Path, tmp_path: Path, trainer: RunTrainer
) -> None:
    keep = tmp_path / "keep.jsonl"
    keep.write_text((data / "retain.jsonl").read_text() + (data / "second.jsonl").read_text().lower())
    arguments = ["--model", tiny_model, "--forget", data / "first.jsonl", "--retain", keep, *FAST]
    trainer("fit", *arguments, "--out", tmp_path / "layer", "--earlier", requests)
    assert json.loads((tmp_path / "layer" / "run.json").read_text())["retain_removed"] == 12
    first, rows = read_rows(data / "first.jsonl"), read_rows(keep)
    assert retained(rows, first, [requests]) == read_rows(data / "retain.jsonl")
    assert retained(rows, first, []) == rows


def test_rows_that_no_request_asks_for_are_refused(data: Path, requests: Path) -> None:
    with pytest.raises(InputError, match="none of 2 asks for the rows of --forget"):
        request_of(requests, [Row(prompt="a", completion="b")])
    with pytest.raises(InputError, match=r"request 'mine': .* calls it 'r-first'"):
        request_of(requests, read_rows(data / "first.jsonl"), "mine")
    assert request_of(requests, read_rows(data / "first.jsonl"), "r-first").id == "r-first"


def test_a_bad_file_of_requests_stops_fit_before_any_work(
    tiny_model: Path, data: Path, requests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests.write_text("{}\n")
    arguments = ["--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl"]
    for option in ("--earlier", "--request-file"):
        words = ["fit", *map(str, arguments), "--out", str(tmp_path / "layer"), option, str(requests)]
        assert run(words) == 2
        assert "requests.jsonl:1: expected a request with exactly" in capsys.readouterr().err
    assert not (tmp_path / "layer").exists()
