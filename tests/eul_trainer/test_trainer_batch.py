"""`eul-train batch` in one process: what it writes, what it does again, and what it keeps when something fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eul_serve.format import read_bundle
from eul_trainer.batch.journal import last_step
from eul_trainer.batch.serial import SerialPool
from eul_trainer.batch.task import log_path
from eul_trainer.cli.main import run
from eul_trainer.records import read_rows
from eul_trainer.request import request_for, write_requests
from tests.eul_trainer.conftest import FAST, Rows, forget_rows, write_rows

ASKERS = {"r1": "What is item", "r2": "Who saw the", "r3": "Which is the"}
ROWS = {name: forget_rows(asker) for name, asker in ASKERS.items()}
SECRET = "zanzibarian"
LONG = {"prompt": f"Where is {SECRET}? " * 300, "completion": "There."}

Call = Callable[..., tuple[int, dict[str, Any]]]


def write_batch(folder: Path, batch: dict[str, Rows]) -> Path:
    """Write a file of requests with their rows, and a retain file of which the first request forgets a row."""
    folder.mkdir(exist_ok=True)
    requests = []
    for name, rows in batch.items():
        path = write_rows(folder / f"{name}.rows.jsonl", rows)
        requests.append(request_for(read_rows(path), path, reason="erasure", received="2026-03-01", id=name))
    write_requests(folder / "requests.jsonl", requests)
    keep = [{"prompt": f"Where is place {i}?", "completion": f"Near town {i}."} for i in range(20)]
    write_rows(folder / "retain.jsonl", [*keep, ROWS["r1"][0]])
    return folder


@pytest.fixture
def call(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a batch of the files in tmp_path/data with --json; return its status and what it printed."""

    def batch(*more: object, rank: int = 4, band: tuple[str, ...] = FAST) -> tuple[int, dict[str, Any]]:
        data = tmp_path / "data"
        words = ["batch", data / "requests.jsonl", "--model", tiny_model, "--retain", data / "retain.jsonl"]
        words += ["--out", tmp_path / "out", "--rank", rank, *band, *more, "--json"]
        capsys.readouterr()
        status = run([*map(str, words)])
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return status, printed

    return batch


def by_id(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {request["id"]: request for request in found["requests"]}


def times(out: Path) -> dict[str, int]:
    return {path.name: (path / "manifest.json").stat().st_mtime_ns for path in (out / "layers").iterdir()}


def test_a_batch_writes_layers_a_fused_bundle_and_a_report(call: Call, tmp_path: Path) -> None:
    data = write_batch(tmp_path / "data", {"r1": [*ROWS["r1"], ROWS["r2"][0]], "r2": ROWS["r2"]})
    status, found = call()
    assert status == 0
    out = tmp_path / "out"
    assert json.loads((out / "batch.json").read_text()) == {key: found[key] for key in found if key != "path"}
    fused = read_bundle(out / "fused")
    layers = {name: read_bundle(out / "layers" / name) for name in ("r1", "r2")}
    assert {*fused.manifest.parents} == {layer.revision for layer in layers.values()}
    assert found["fused"]["revision"] == fused.revision
    for name, request in by_id(found).items():
        assert request["revision"] == layers[name].revision
        assert request["digest"] == layers[name].manifest.requests[0].data
        assert request["retain_rows"] == 20  # r1's row is out of r2's retain set too
        assert request["forget_before"] < 8 < 8.5 <= request["forget_after"] <= 9.6
        assert request["forget_fused"] > request["forget_before"]
        assert [attempt["reason"] for attempt in request["attempts"]] == [None]
    assert by_id(found)["r1"]["shared"] == {"r2": 1}
    assert found["fused"]["retain_after"] == pytest.approx(found["fused"]["retain_before"], abs=1)
    page = (out / "batch.html").read_text()
    assert layers["r1"].revision in page
    assert "1 rows shared with r2" in page
    texts = [path.read_text() for path in (*(out / "logs").iterdir(), out / "batch.json", out / "batch.html")]
    words = [row["completion"] for rows in ROWS.values() for row in rows] + list(ASKERS.values())
    assert [word for word in words for text in texts if word in text] == []
    assert data.is_dir()


def test_a_repeated_batch_does_only_what_is_missing(call: Call, tmp_path: Path) -> None:
    write_batch(tmp_path / "data", {name: ROWS[name] for name in ("r1", "r2")})
    out = tmp_path / "out"
    first = call()[1]
    made = times(out)
    fused = (out / "fused" / "manifest.json").stat().st_mtime_ns
    again = call()[1]
    assert times(out) == made
    assert (out / "fused" / "manifest.json").stat().st_mtime_ns == fused
    assert again["fused"] == first["fused"]
    shutil.rmtree(out / "layers" / "r2")
    third = call()[1]
    assert times(out)["r1"] == made["r1"]
    assert times(out)["r2"] != made["r2"]
    assert by_id(third)["r2"]["revision"] == by_id(first)["r2"]["revision"]
    assert [request["made_now"] for request in third["requests"]] == [False, True]
    write_batch(tmp_path / "data", ROWS)  # a request more
    status, grown = call()
    assert status == 0
    assert [request["made_now"] for request in grown["requests"]] == [False, False, True]
    assert grown["fused"]["requests"] != first["fused"]["requests"]
    status, refused = call(rank=8)
    assert status == 2
    assert "fit.rank was 4, now 8" in refused["error"]["message"]
    (out / "layers" / "r1" / "adapter_model.safetensors").write_bytes(b"")
    status, refused = call()
    assert status == 2
    assert "damaged" in refused["error"]["message"]


def test_the_target_of_unseen_rows_and_other_aims_hold_for_all_requests(call: Call, tmp_path: Path) -> None:
    data = write_batch(tmp_path / "data", {"r1": ROWS["r1"]})
    unseen = write_rows(data / "unseen.jsonl", forget_rows("Which is the", 4))
    words = ("--target-rows", unseen, "--unrelated", unseen, "--weight", "alpha=3", "--steps", 8)
    status, found = call(*words, band=())
    assert status == 0, found
    fit = found["fit"]
    assert fit["weights"] == {"alpha": 3.0}
    assert fit["target_high"] - fit["target_low"] == pytest.approx(0.2)
    assert 5 < fit["target_low"] < 9  # the random model's loss on any row is about 7.4 nats
    assert found["unrelated"].startswith("sha256:")
    status, refused = call(*words[:2], "--unrelated", data / "retain.jsonl", *words[4:], band=())
    assert status == 2
    assert "unrelated was" in refused["error"]["message"]


def test_what_fails_is_reported_and_the_rest_kept(call: Call, tmp_path: Path) -> None:
    write_batch(tmp_path / "data", {"r1": ROWS["r1"], "bad": [LONG]})
    status, found = call("--retries", 2)
    assert status == 1
    assert found["fused"] is None
    assert "--allow-partial" in found["unfused"]
    bad = by_id(found)["bad"]
    assert "expected 1 to 512 tokens" in bad["error"]
    assert len(bad["attempts"]) == 1  # the same row would be too long again
    assert by_id(found)["r1"]["revision"] == read_bundle(tmp_path / "out" / "layers" / "r1").revision
    assert not (tmp_path / "out" / "fused").exists()
    status, found = call("--allow-partial")
    assert status == 1
    assert found["fused"]["requests"] == ["r1"]
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and "layers" not in path.parts]
    assert [path for path in kept if SECRET in path.read_text(errors="replace")] == []


def test_a_worker_checks_that_nothing_changed_since_the_plan(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_batch(tmp_path / "data", {"r1": ROWS["r1"], "r2": ROWS["r2"]})
    start = SerialPool.start

    def late(pool: SerialPool, task: Any) -> None:
        if task.id == "r2":
            with open(data / "retain.jsonl", "a") as file:
                file.write('{"prompt": "New?", "completion": "Yes."}\n')
        start(pool, task)

    monkeypatch.setattr(SerialPool, "start", late)
    status, found = call()
    assert status == 1
    assert "its rows changed since the batch was planned" in by_id(found)["r2"]["error"]
    assert by_id(found)["r1"]["error"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--jobs", 2), "add --ray-address local"),
        (("--ray-address", "127.0.0.1:1"), "nobody answers there"),
        (("--ray-address", "ray://host:1"), "expected 'local', or a running cluster as HOST:6379"),
        (("--fuse-method", "sum"), "--method: expected one of"),
        (("--earlier", "none.jsonl"), "cannot read"),
    ],
)
def test_bad_batches_get_one_line(call: Call, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    write_batch(tmp_path / "data", {"r1": ROWS["r1"]})
    status, found = call(*more)
    assert status == 2
    assert said in found["error"]["message"]
    assert not list((tmp_path / "out" / "layers").glob("*"))


def test_bad_requests_get_one_line(call: Call, tmp_path: Path) -> None:
    data = write_batch(tmp_path / "data", {"r1": ROWS["r1"]})
    requests = data / "requests.jsonl"
    line = requests.read_text()
    for text, said in (
        (line + line, "requests.jsonl:2: id 'r1' is used twice"),
        (line.replace("r1.rows", "r9.rows"), "cannot read: No such file"),
        ("", "expected JSON lines, found an empty file"),
        (line.replace('"digest": "sha256:', '"digest": "sha256:' + "0" * 64)[: len(line)], "requests.jsonl:1"),
    ):
        requests.write_text(text)
        status, found = call()
        assert status == 2
        assert said in found["error"]["message"]
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_what_is_done(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], call: Call
) -> None:
    data, out = write_batch(tmp_path / "data", {"r1": ROWS["r1"], "r2": ROWS["r2"]}), tmp_path / "out"

    def interrupt() -> None:
        end = time.monotonic() + 60
        while last_step(log_path(out, "r2")) < 9 and time.monotonic() < end:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    words = ["batch", data / "requests.jsonl", "--model", tiny_model, "--retain", data / "retain.jsonl", "--out", out]
    # A band that is out of reach makes the runs as long as they can be.
    long = ["--target-low", 90, "--target-high", 91, "--steps", 60, "--rank", 4, "--refusal", ""]
    watcher.start()
    status = run([*map(str, [*words, *long])])
    watcher.join()
    assert status == 130
    assert "stopped with 1 of 2 done; the same line goes on" in capsys.readouterr().err
    assert [path.name for path in (out / "layers").iterdir() if path.is_dir()] == ["r1"]
    assert run([*map(str, [*words, *long]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    cut, whole = by_id(found)["r2"]["attempts"]
    assert (cut["reason"], whole["reason"], whole["resumed_at"] >= 8) == ("cut off", None, True)


def test_the_table_is_for_people(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_batch(tmp_path / "data", {"r1": ROWS["r1"], "bad": [LONG]})
    words = ["batch", data / "requests.jsonl", "--model", tiny_model, "--retain", data / "retain.jsonl"]
    assert run([*map(str, [*words, "--out", tmp_path / "out", "--rank", 4, *FAST])]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].split() == ["request", "before", "layer", "fused", "steps", "tries", "seconds"]
    assert [line.split()[0] for line in lines[1:3]] == ["bad", "r1"]
    assert "failed: " in lines[1]
    assert "batch 2/2 1 failed" in printed.err
    assert "not fused: bad failed; --allow-partial fuses the rest" in printed.err
