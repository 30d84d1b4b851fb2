"""`eul-train`: what a person types, what comes out, and the one line for everything that is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from eul_serve.format import Bundle, read_bundle
from eul_trainer.cli import main as cli
from eul_trainer.cli.progress import progress

MakeBundle = Callable[..., Bundle]
RunTrainer = Callable[..., dict[str, Any]]


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run a line that must fail; return its status and its one line of words."""
    capsys.readouterr()
    status = cli.run([*map(str, arguments)])
    printed = capsys.readouterr()
    assert status != 0
    lines = [line for line in printed.err.splitlines() if line.startswith("eul-train: ")]
    assert len(lines) == 1
    assert "Traceback" not in printed.err
    return status, lines[0].removeprefix("eul-train: ")


@pytest.fixture
def fit_line(tiny_model: Path, data: Path, tmp_path: Path) -> list[object]:
    return ["fit", "--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl",
            "--out", tmp_path / "out"]  # fmt: skip


def test_help_is_fast_and_teaches() -> None:
    code = (
        "import sys; from eul_trainer.cli.main import run; run(['--help']);"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in cli.COMMANDS:
        found = CliRunner().invoke(cli.group, [name, "--help"])
        assert found.exit_code == 0
        assert re.search(rf"Examples?:\n\s+eul-train {name} ", found.output)


def test_the_whole_path(
    tiny_model: Path, data: Path, layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    retain = data / "retain.jsonl"

    def line(*arguments: object) -> str:
        assert cli.run([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    fused = line("fuse", layers / "first", layers / "second", "--model", tiny_model, "--retain", retain,
                 "--out", tmp_path / "fused", "--rho", "0.5")  # fmt: skip
    assert "at rank 16" in fused
    assert read_bundle(tmp_path / "fused").manifest.settings["fusion"]["rho"] == 0.5
    assert "took out first; left are second" in line(
        "revoke", tmp_path / "fused", "--request", "first", "--out", tmp_path / "rest"
    )
    told = line("eval", "--model", tiny_model, "--bundle", tmp_path / "fused", "--bundle", tmp_path / "rest",
                "--forget", data / "first.jsonl", "--forget", data / "second.jsonl", "--retain", retain,
                "--out", tmp_path / "report")  # fmt: skip
    assert "first (forget, 12 rows): loss base 7." in told
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    names = [(found["name"], found["kind"], found["rows"]) for found in metrics["sets"]]
    assert names == [("first", "forget", 12), ("second", "forget", 12), ("retain", "retain", 20)]
    assert list(metrics["sets"][2]["groups"]) == ["g0", "g1"]
    losses = {system: numbers["loss"] for system, numbers in metrics["sets"][0]["systems"].items()}
    assert losses["fused"] > losses["base"] + 0.3
    assert metrics["systems"]["base"] is None
    assert metrics["systems"]["fused"] == read_bundle(tmp_path / "fused").revision
    first = metrics["rows"][0]["systems"]
    assert set(first) == {"base", "fused", "rest"}
    assert set(first["base"]) == {
        "loss", "accuracy", "extraction_strength", "divergence", "rouge_l", "rouge_l_f1", "gibberish", "answer",
        "truth_ratio", "truth_ratio_arithmetic", "tokens", "label", "masked_word_loss",
    }  # fmt: skip
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert "http" not in re.sub(
        r'xmlns(:\w+)?="[^"]*"|http://www.w3.org/[^"]*|http://purl.org/[^"]*|http://creativecommons.org/[^"]*|https://matplotlib.org/',
        "",
        page,
    )


def test_eval_of_the_base_model_alone(tiny_model: Path, data: Path, tmp_path: Path, trainer: RunTrainer) -> None:
    found = trainer("eval", "--model", tiny_model, "--forget", data / "retain.jsonl", "--retain", data / "retain.jsonl",
                    "--out", tmp_path / "report")  # fmt: skip
    assert [item["name"] for item in found["sets"]] == ["retain-1", "retain"]
    assert found["sets"][0]["systems"] == found["sets"][1]["systems"]


def test_fit_says_what_it_takes_out_of_the_retain_set(
    fit_line: list[object], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = tmp_path / "both.jsonl"
    both.write_bytes((data / "retain.jsonl").read_bytes() + (data / "first.jsonl").read_bytes())
    line = [*fit_line, "--steps", "2", "--rank", "2", "--request", "alice"]
    line[6] = both
    assert cli.run([*map(str, line)]) == 0
    printed = capsys.readouterr()
    assert "took 12 rows out of the retain set" in printed.err
    assert "fit 1/2 loss" in printed.err
    assert "lies below what the base model itself answers with" in printed.err
    assert "forget loss 7." in printed.out
    bundle = read_bundle(tmp_path / "out")
    assert [request.id for request in bundle.manifest.requests] == ["alice"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["retain_removed"] == 12
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_fields_can_be_named(fit_line: list[object], tmp_path: Path, trainer: RunTrainer) -> None:
    rows = [{"question": f"Who is {n}?", "reply": "A poet."} for n in range(4)]
    for name in ("f.jsonl", "r.jsonl"):
        (tmp_path / name).write_text(
            "".join(json.dumps({**row, "reply": f"{name} {row['reply']}"}) + "\n" for row in rows)
        )
    line = [*fit_line, "--prompt-field", "question", "--completion-field", "reply", "--steps", "1", "--fresh"]
    line[4], line[6] = tmp_path / "f.jsonl", tmp_path / "r.jsonl"
    assert trainer(*line)["steps"] == 1


BAD_FITS = {
    "missing file": (["--forget", "nothing.jsonl"], 2, "data file 'nothing.jsonl': cannot read: No such file"),
    "no model": (["--model", "/nowhere/model"], 2, "model '/nowhere/model': expected a local model directory"),
    "request with dots": (["--request", "../x"], 2, "request name '../x': expected 1 to 63 characters"),
    "request with a slash": (["--request", "a/b"], 2, "request name 'a/b'"),
    "rank 0": (["--rank", "0"], 2, "--rank: expected 1 to 4096, found 0"),
    "rank 9999": (["--rank", "9999"], 2, "--rank: expected 1 to 4096, found 9999"),
    "rank NaN": (["--rank", "nan"], 2, "Invalid value for '--rank'"),
    "target NaN": (["--target-low", "nan"], 2, "--target-low and --target-high: expected 0 < low < high"),
    "field": (
        ["--completion-field", "reply"],
        2,
        "first.jsonl:1: missing field 'reply'; the row has completion, prompt",
    ),
    "objective": (["--objective", "best"], 2, "'best' is not one of 'bounded', 'paper'"),
    "option": (["--colour", "red"], 2, "No such option"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_fits_get_one_line_and_leave_nothing(
    case: str, fit_line: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, status, words = BAD_FITS[case]
    found = fails(capsys, *fit_line, *arguments)
    assert found[0] == status
    assert words in found[1]
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_taken_is_found_before_any_work(
    fit_line: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("mine")
    line = [*fit_line, "--model", "/nowhere/model"]
    assert "expected a new or empty directory" in fails(capsys, *line)[1]
    assert (tmp_path / "out" / "file").read_text() == "mine"


def test_an_output_whose_name_is_no_request_asks_for_one(
    fit_line: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*fit_line[:-1], tmp_path / "Alice and Bob"]
    assert "name another with --request ID" in fails(capsys, *line)[1]


def test_a_row_without_the_field_is_named_by_file_and_line(
    fit_line: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    assert f"{bad}:2: missing field 'completion'" in fails(capsys, *fit_line, "--forget", bad)[1]


def test_errors_with_json_are_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same document as `eul` prints, and nothing beside it."""
    line = ["fuse", str(tmp_path / "a"), "--out", str(tmp_path / "out")]
    message = fails(capsys, *line)[1]
    assert cli.run([*line, "--json"]) == 2
    printed = capsys.readouterr()
    error = {"exit_status": 2, "kind": "InputError", "message": message}
    assert (json.loads(printed.out), printed.err) == ({"error": error}, "")
    assert "expected a directory" in message


def test_fuse_wants_model_and_retain_together(
    layers: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fuse", layers / "first", "--out", tmp_path / "out", "--retain", data / "retain.jsonl"]
    assert "expected both or neither" in fails(capsys, *line)[1]
    assert (
        "--rho: expected 0 to" in fails(capsys, "fuse", layers / "first", "--out", tmp_path / "out", "--rho", "-1")[1]
    )


def test_a_bundle_for_another_model_is_a_mismatch(
    tiny_model: Path, data: Path, other_model: Path, make_bundle: MakeBundle, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bundle = make_bundle(tmp_path / "bundle", other_model)
    line = ["eval", "--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl"]
    status, words = fails(capsys, *line, "--bundle", bundle.path, "--out", tmp_path / "out")
    assert status == 3
    assert "made for base model" in words
    twice = fails(capsys, *line, "--bundle", bundle.path, "--bundle", bundle.path, "--out", tmp_path / "out")
    assert "two systems are called 'bundle'" in twice[1]


def test_an_unexpected_error_is_called_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fit", "eul_trainer.cli.no_such_file")
    assert cli.run(["fit"]) == 1
    assert "this is a bug" in capsys.readouterr().err
    monkeypatch.setenv("EUL_DEBUG", "1")
    assert cli.run(["fit"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_package_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from eul_trainer.cli.main import main; main()"  # as where it is not
    )
    line = [sys.executable, "-c", code, "revoke", "x", "--request", "r", "--out", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "eul-train: this command needs the package 'torch'; pip install 'eul-serve[train]'\n"


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such command 'forget'" in fails(capsys, "forget")[1]


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("work", 3, quiet=False) as advance:
        for done in range(1, 4):
            advance(done, f"loss {done}")
    assert "work" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EUL_DEBUG", raising=False)
