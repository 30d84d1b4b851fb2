"""Sweeps: the grid, the Pareto set and the rule on numbers worked out by hand, and whole sweeps that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import InputError
from eul_serve.format import read_bundle
from eul_trainer.cli.main import run
from eul_trainer.fit.stop import Target
from eul_trainer.settings import FitSettings
from eul_trainer.sweep.choice import Outcome, choose, pareto, table
from eul_trainer.sweep.grid import parse_axis, points

RunTrainer = Callable[..., dict[str, Any]]
TARGET = Target(low=4.0, high=5.0)


def outcome(name: str, forget: float, retain: float) -> Outcome:
    return Outcome(name=name, varied={}, forget=forget, retain=retain, forget_before=0.1, retain_before=1.0)


# Misses of the band [4, 5]: a 0, b 0, c 1, d 0.5, e 2. Changes of the retain loss from 1.0: a .30, b .20, c .10, d .40,
# e .15 (a fall counts like a rise). So b beats a and d, c beats e, and b and c beat each other in one thing each.
OUTCOMES = [outcome("a", 4.5, 1.3), outcome("b", 4.9, 1.2), outcome("c", 3.0, 1.1), outcome("d", 5.5, 1.4),
            outcome("e", 7.0, 0.85)]  # fmt: skip
FAILED = Outcome(name="f", varied={}, failed="training diverged")


def test_the_pareto_set_and_the_choice() -> None:
    outcomes = [FAILED, *OUTCOMES]
    front, chosen = pareto(outcomes, TARGET), choose(outcomes, TARGET)
    assert [found.name for found in front] == ["b", "c"]
    assert chosen is not None
    assert chosen.name == "b"
    lines = table(outcomes, chosen, front)
    assert lines[2] == "| f | | | | failed: training diverged |"
    assert lines[4] == "| b | 4.900 | 0.2000 | 0 | chosen |"
    assert lines[5] == "| c | 3.000 | 0.1000 | 0 | Pareto |"


def test_without_a_point_in_the_band_the_nearest_is_chosen() -> None:
    outside = OUTCOMES[2:]
    chosen = choose(outside, TARGET)
    assert chosen is not None
    assert chosen.name == "d"
    assert choose([FAILED], TARGET) is None
    assert pareto([FAILED], TARGET) == []


def test_equal_points_are_both_in_the_set_and_the_first_is_chosen() -> None:
    twins = [outcome("x", 4.5, 1.1), outcome("y", 4.2, 1.1)]
    assert pareto(twins, TARGET) == twins
    assert choose(twins, TARGET) == twins[0]


def test_the_grid_is_every_combination() -> None:
    axes = dict(map(parse_axis, ("learning-rate=1e-3,2e-3", "rank=8,16")))
    found = points(FitSettings(), axes)
    assert [(point.settings.learning_rate, point.settings.rank) for point in found] == [
        (1e-3, 8), (1e-3, 16), (2e-3, 8), (2e-3, 16),
    ]  # fmt: skip
    assert found[1].name == "learning-rate=0.001_rank=16"


def test_strength_multiplies_what_pushes_forgetting_and_a_weight_is_set() -> None:
    """The bounded objective pushes with 0.3 (divergence) and 0.2 (hinge): twice that is 0.6 and 0.4."""
    (point,) = points(FitSettings(), {"strength": [2.0], "weight.silence": [300.0]})
    assert point.settings.weights == {"forget": 0.6, "gamma": 0.4, "silence": 300.0}
    (point,) = points(FitSettings(objective="rmu"), {"strength": [2.0]})
    assert point.settings.weights == {"steering": 13.0}


BAD_AXES = {
    "learning-rate": "expected NAME=NUMBER,NUMBER...",
    "learning-rate=": "expected NAME=NUMBER,NUMBER...",
    "learning-rate=a,b": "expected NAME=NUMBER,NUMBER...",
    "colour=1": "--vary colour: expected strength, weight.NAME or a number among the settings: rank, steps",
    "objective=1": "a number among the settings",
    "checkpointing=1": "a number among the settings",
    "rank=1.5": "--vary rank: expected whole numbers, found 1.5",
    "learning-rate=7": "--learning-rate: expected above 0 and at most 1, found 7.0",
    "weight.colour=1": "has no such weight",
}


@pytest.mark.parametrize("text", BAD_AXES)
def test_a_wrong_axis_is_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        points(FitSettings(), dict([parse_axis(text)]))
    assert BAD_AXES[text] in str(caught.value)


@pytest.fixture
def line(tiny_model: Path, data: Path, tmp_path: Path) -> list[str]:
    words = ["sweep", "--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl",
             "--out", tmp_path / "out", "--rank", "4", "--steps", "40", "--target-low", "7.8", "--target-high", "8.4",
             "--batch-size", "8", "--vary", "learning-rate=0.05,0.08"]  # fmt: skip
    return list(map(str, words))


def test_a_sweep_writes_the_best_layer_and_keeps_finished_points(
    line: list[str], tmp_path: Path, trainer: RunTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    found = trainer(*line)
    assert len(found["points"]) == 2
    chosen = next(point for point in found["points"] if point["name"] == found["chosen"])
    work = tmp_path / "out.sweep"
    assert read_bundle(tmp_path / "out").revision == read_bundle(work / "points" / chosen["name"]).revision
    assert found["revision"] == read_bundle(tmp_path / "out").revision
    inside = [point for point in found["points"] if 7.8 <= point["forget"] <= 8.4]
    assert inside
    assert chosen["retain_change"] == min(point["retain_change"] for point in inside)
    assert chosen["retain_change"] == abs(chosen["retain"] - chosen["retain_before"])
    assert json.loads((work / "sweep.json").read_text())["pareto"] == found["pareto"]
    assert (work / "sweep.svg").read_text().lstrip().startswith("<?xml")
    assert (work / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert "Chosen: learning-rate=" in (work / "sweep.md").read_text()
    records = {path.name: path.stat().st_mtime_ns for path in (work / "points").glob("*.json")}
    shutil.rmtree(tmp_path / "out")
    again = trainer(*line)
    assert again == found
    assert {path.name: path.stat().st_mtime_ns for path in (work / "points").glob("*.json")} == records
    shutil.rmtree(tmp_path / "out")
    assert run([*line, "--steps", "12"]) == 2
    assert "trained with other settings or data: --steps was 40 and is 12; restore them" in capsys.readouterr().err


def test_a_point_that_is_given_up_is_never_chosen(
    line: list[str], tmp_path: Path, trainer: RunTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gradient ascent at a rate of 1 ruins the rows to keep; a value is then added to the grid."""
    line = [*line[:-1], "learning-rate=1", "--objective", "ascent", "--steps", "9"]
    assert run(line) == 1
    assert "sweep: all 1 points failed, the first so: given up after step 9" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    found = trainer(*[word.replace("=1", "=1,0.0001") for word in line])
    assert found["chosen"] == "learning-rate=0.0001"
    assert found["pareto"] == ["learning-rate=0.0001"]
    assert found["points"][0]["failed"].startswith("given up after step 9")
    assert found["points"][0]["retain_change"] is None


def test_a_killed_sweep_goes_on_side_by_side(forker: Any, line: list[str], tmp_path: Path) -> None:
    """Killed after its first point, it keeps it; the rest is trained in processes of their own."""
    points_of = tmp_path / "out.sweep" / "points"
    child = forker.start(line)
    deadline = time.monotonic() + 120
    while not list(points_of.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    forker.finish(child)
    first = {path: path.read_bytes() for path in points_of.glob("*.json")}
    status, told = forker.finish(forker.start([*line, "--jobs", "2"]))
    assert status == 0, told
    assert "| chosen |" in told
    assert len(list(points_of.glob("*.json"))) == 2
    assert all(path.read_bytes() == data for path, data in first.items())
