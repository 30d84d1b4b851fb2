"""`fit`'s options on objective, weights, target and unrelated text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.errors import BundleMismatchError, InputError
from eul_trainer.cli.main import run
from eul_trainer.fit.run import prepare
from eul_trainer.fit.targets import twin_target, unseen_target
from eul_trainer.fit.training import Training
from eul_trainer.forward.losses import row_losses
from eul_trainer.model.load import load_model
from eul_trainer.records import Fields, read_rows
from eul_trainer.settings import FitSettings

RunTrainer = Callable[..., dict[str, object]]


def mean_loss(model: Path, file: Path, data: Path) -> float:
    """The mean answer loss of a file's rows, measured through a run that has not begun."""
    training: Training = prepare(
        load_model(str(model)), read_rows(file, Fields()), read_rows(data / "retain.jsonl", Fields()), FitSettings()
    )
    losses = row_losses(training.runner, training.sets.forget)
    return sum(losses) / len(losses)


def test_a_target_is_measured_on_unseen_rows_or_on_a_twin(tiny_model: Path, other_model: Path, data: Path) -> None:
    model, rows = load_model(str(tiny_model)), read_rows(data / "first.jsonl", Fields())
    seen = mean_loss(tiny_model, data / "first.jsonl", data)
    band = unseen_target(model, rows, 0.25)
    assert (band.low, band.high) == pytest.approx((seen - 0.25, seen + 0.25), abs=2e-4)
    twin = mean_loss(other_model, data / "first.jsonl", data)
    assert twin != pytest.approx(seen, abs=0.01)
    band = twin_target(model, str(other_model), rows, 0.1)
    assert (band.low, band.high) == pytest.approx((twin - 0.1, twin + 0.1), abs=2e-4)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), 50.0])
def test_a_target_that_is_no_target_is_refused(
    tolerance: float, tiny_model: Path, data: Path, make_layout: Callable[..., Path], tmp_path: Path
) -> None:
    model, rows = load_model(str(tiny_model)), read_rows(data / "first.jsonl", Fields())[:2]
    with pytest.raises(InputError, match=r"--target-tolerance"):
        unseen_target(model, rows, tolerance)
    if tolerance == 50.0:
        bare = make_layout("qwen2", tmp_path, template=False)
        with pytest.raises(BundleMismatchError, match="expected the base model's tokenizer and chat template"):
            twin_target(model, str(bare), rows, 0.1)


def line(model: Path, data: Path, out: Path) -> list[str]:
    files = ["--forget", data / "first.jsonl", "--retain", data / "retain.jsonl", "--out", out]
    return ["fit", "--model", str(model), *map(str, files), "--rank", "4", "--batch-size", "8"]


def test_fit_goes_to_the_loss_of_unseen_rows(tiny_model: Path, data: Path, tmp_path: Path, trainer: RunTrainer) -> None:
    """The random model knows nothing, so the target is its own loss: it is there before it begins."""
    found = trainer(
        *line(tiny_model, data, tmp_path / "out"), "--target-rows", data / "second.jsonl", "--steps", 12,
        "--unrelated", data / "retain.jsonl", "--refusal", "", "--weight", "silence=10", "--weight", "alpha=1",
    )  # fmt: skip
    target = found["target"]
    assert isinstance(target, list)
    assert sum(target) / 2 == pytest.approx(mean_loss(tiny_model, data / "second.jsonl", data), abs=1e-3)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["fit"]["weights"] == {"silence": 10, "alpha": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weight", "alpha"], "--weight 'alpha': expected NAME=VALUE with a number, such as beta=0.1"),
        (["--weight", "alpha=x"], "--weight 'alpha=x': expected NAME=VALUE with a number"),
        (["--weight", "beta=1"], "--weight beta: objective 'bounded' has no such weight"),
        (["--retain-term", "kl"], "--retain-term: objective 'bounded' has no choice of it"),
        (["--trainable", "some"], "--trainable: expected one of layer, lora, full, found 'some'"),
        (["--target-low", "3", "--target-twin", "x"], "expected one of --target-low/--target-high, --target-rows"),
        (["--target-rows", "x", "--target-twin", "y"], "expected one of --target-low/--target-high, --target-rows"),
        (["--target-rows", "missing.jsonl"], "data file 'missing.jsonl': cannot read"),
        (["--unrelated", "missing.jsonl"], "data file 'missing.jsonl': cannot read"),
        (["--trainable", "full", "--scale", "2"], "--scale: expected 1.0 with --trainable full"),
    ],
)
def test_bad_aims_get_one_line(
    options: list[str], message: str, tiny_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*line(tiny_model, data, tmp_path / "out"), *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unknown_objectives_are_refused_with_those_there_are(
    tiny_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*line(tiny_model, data, tmp_path / "out"), "--objective", "best"]) == 2
    assert "'npo', 'simnpo'" in capsys.readouterr().err


def test_what_was_written_is_said_in_words(
    tiny_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--objective", "npo", "--trainable", "lora", "--steps", "1"]
    assert run([*line(tiny_model, data, tmp_path / "out"), *options]) == 0
    assert "a PEFT LoRA, not a bundle: load it with PeftModel.from_pretrained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "words"),
    [("2000", "was not reached: raise --steps or --rank"), ("7.5", "was passed: lower --learning-rate")],
)
def test_a_target_that_was_missed_is_told_by_its_side(
    target: str, words: str, tiny_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base model is at 7.48 nats; thirteen steps at this rate are between the two targets."""
    options = ["--target-low", target, "--target-high", str(float(target) + 0.01), "--steps", "13", "--scale", "1"]
    rates = ["--learning-rate", "0.05", "--objective", "graddiff", "--unrelated-limit", "0"]
    assert run([*line(tiny_model, data, tmp_path / "out"), *options, *rates]) == 0
    assert words in capsys.readouterr().err
