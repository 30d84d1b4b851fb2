"""The baselines: what each of them trains on, by formula and by equality with a run that is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.errors import InputError
from eul_trainer.baselines.evaluated import mean_scores, open_system
from eul_trainer.baselines.methods import Split, default_settings, make_lesson, run_method
from eul_trainer.cli import main as cli
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.losses import row_scores
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.records import Fields, Row, digest_rows, read_rows
from eul_trainer.teaching.run import encode_taught, teach
from eul_trainer.teaching.settings import TeachSettings
from eul_trainer.teaching.weights import FullTraining, Lesson

RunTrainer = Callable[..., dict[str, Any]]
EXACT = TeachSettings(dtype="float32", epochs=2, learning_rate=1e-3)


@pytest.fixture
def split(data: Path) -> Split:
    rows = read_rows(data / "first.jsonl", Fields())
    return Split(forget=rows[:3], retain=rows[3:])


def gradients(training: FullTraining, rows: list[int]) -> dict[str, torch.Tensor]:
    training.optimizer.zero_grad()
    training.loss(rows)[0].backward()  # type: ignore[no-untyped-call]
    return {
        name: parameter.grad.clone() for name, parameter in training.parameters.items() if parameter.grad is not None
    }


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_reverse_gradient_is_the_retain_gradient_minus_the_forget_gradient(
    weight: float, tiny_model: Path, split: Split
) -> None:
    model = load_model(str(tiny_model))
    kept, lost = encode_taught(model, split.retain), encode_taught(model, split.forget)
    lesson = make_lesson("revgrad", model, split, weight)
    both = gradients(FullTraining(model, lesson, EXACT), list(range(len(kept) + len(lost))))
    retain = gradients(FullTraining(model, Lesson.learn(kept), EXACT), list(range(len(kept))))
    forget = gradients(FullTraining(model, Lesson.learn(lost), EXACT), list(range(len(lost))))
    t_r, t_f = (sum(len(example.answer) for example in examples) for examples in (kept, lost))
    for name, found in both.items():
        expected = (t_r * retain[name] - weight * t_f * forget[name]) / (t_r + t_f)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_retraining_and_fine_tuning_see_no_forgotten_row(tiny_model: Path, split: Split) -> None:
    model = load_model(str(tiny_model))
    kept = encode_taught(model, split.retain)
    for method in ("retrain", "finetune"):
        lesson = make_lesson(method, model, split)
        assert list(lesson.examples) == kept
        assert set(lesson.weights) == {1.0}


@pytest.mark.parametrize("method", ["retrain", "finetune"])
def test_learning_methods_equal_teaching_the_retained_rows(method: str, tiny_model: Path, split: Split) -> None:
    first, second = load_model(str(tiny_model)), load_model(str(tiny_model))
    run_method(method, first, split, EXACT)
    teach(second, split.retain, EXACT)
    for name, tensor in second.network.state_dict().items():
        assert torch.equal(tensor, first.network.state_dict()[name]), name


def test_reverse_gradient_goes_up_the_loss_of_what_it_forgets(tiny_model: Path, split: Split) -> None:
    def losses(model: LoadedModel, rows: list[Row]) -> float:
        examples = encode(model.tokenizer, rows, limit=context_limit(model.network))
        scores = row_scores(Runner(model, examples), examples)
        return sum(score.loss for score in scores) / len(scores)

    model = load_model(str(tiny_model))
    teach(model, [*split.forget, *split.retain], TeachSettings(dtype="float32", epochs=20, learning_rate=3e-3))
    before = losses(model, list(split.forget)), losses(model, list(split.retain))
    run_method("revgrad", model, split, TeachSettings(dtype="float32", epochs=10, learning_rate=1e-3))
    assert losses(model, list(split.forget)) > before[0] + 1.0
    assert losses(model, list(split.retain)) < before[1] + 0.5


def test_default_settings_are_those_of_teaching_and_of_the_paper() -> None:
    assert default_settings("retrain") == TeachSettings()
    for method in ("finetune", "revgrad"):
        found = default_settings(method)  # section 4.4: at most 5e-5, a warm-up of 0.06, 3 or 5 epochs
        assert (found.learning_rate, found.warm_up, found.epochs) == (5e-5, 0.06, 3)


def test_settings_and_rows_out_of_range_are_told(tiny_model: Path, split: Split) -> None:
    with pytest.raises(InputError, match="retain rows: expected at least one, found none"):
        Split(forget=split.forget, retain=[])
    model = load_model(str(tiny_model))
    with pytest.raises(InputError, match="--weight: expected above 0"):
        make_lesson("revgrad", model, split, 0.0)
    with pytest.raises(InputError, match="--method: expected one of retrain, finetune, revgrad, found 'mend'"):
        make_lesson("mend", model, split)


def test_the_whole_comparison(
    trainer: RunTrainer, tiny_model: Path, data: Path, layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_rows(data / "first.jsonl", Fields())
    (tmp_path / "forget.jsonl").write_text("".join((data / "first.jsonl").read_text().splitlines(keepends=True)[:3]))
    both = ["--forget", tmp_path / "forget.jsonl", "--retain", data / "first.jsonl"]
    taught, twin, reverse = (tmp_path / name for name in ("taught", "twin", "reverse"))
    fast = ["--epochs", 20, "--learning-rate", 0.003]
    trainer("teach", "--model", tiny_model, "--data", data / "first.jsonl", "--out", taught, *fast)
    told = trainer("baseline", "retrain", "--model", tiny_model, *both, "--out", twin, *fast)
    assert (told["rows"], told["retain_removed"], told["forget_rows"], told["method"]) == (9, 3, 3, "retrain")
    assert told["data"] == digest_rows(rows[3:])
    assert told["forget_data"] == digest_rows(rows[:3])
    told = trainer("baseline", "revgrad", "--model", taught, *both, "--out", reverse, "--weight", 0.5, "--epochs", 1)
    record = json.loads((reverse / "baseline.json").read_text())
    assert (record["method"], record["weight"], record["steps"]) == ("revgrad", 0.5, 2)
    assert record["settings"]["learning_rate"] == 5e-5
    assert record["seconds"] > 0

    sets = ["--rows", tmp_path / "forget.jsonl", "--rows", data / "retain.jsonl"]
    bundle = layers / "first"
    measured = trainer("baseline", "measure", tiny_model, taught, twin, bundle, "--model", tiny_model, *sets)
    losses = {name: found[str(tmp_path / "forget.jsonl")]["loss"] for name, found in measured["systems"].items()}
    assert losses[str(taught)] < 0.5 < losses[str(twin)]
    assert losses[str(bundle)] > losses[str(tiny_model)] + 0.5
    direct = mean_scores(open_system(str(taught)), rows[:3])
    assert losses[str(taught)] == pytest.approx(direct["loss"], abs=1e-6)
    assert open_system(str(taught)).answers(rows[3:4], 12)[0].startswith("It is a ")

    # A twin of a model that was taught already would know what it must not.
    assert cli.run(["baseline", "retrain", "--model", str(taught), *map(str, both), "--out", str(tmp_path / "no")]) == 2
    assert "was taught rows before (teach.json)" in capsys.readouterr().err
    assert cli.run(["baseline", "measure", str(bundle), "--rows", str(tmp_path / "forget.jsonl")]) == 2
    assert "name the model that it was made for with --model" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forget.jsonl", "reverse", "taught", "twin"]
