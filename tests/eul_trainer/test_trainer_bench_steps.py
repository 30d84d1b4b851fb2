"""The benchmarks that run the product's commands, on the tiny random model and a small TOFU: the way, no numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eul_trainer.data.tofu_files import AUTHOR_ROWS

# As FAST of conftest.py: a few large steps of a random model.
FIT = ("--learning-rate", "0.05", "--steps", "4", "--refusal", "", "--rank", "4")


@pytest.fixture
def tofu(tmp_path: Path) -> Path:
    """TOFU's main file with six authors."""
    folder = tmp_path / "tofu"
    folder.mkdir()
    rows = [
        {"question": f"What is book {number} of author {author}?", "answer": f"It is the tale of river {number}."}
        for author in range(6)
        for number in range(AUTHOR_ROWS)
    ]
    (folder / "full.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_verdicts_and_the_twin(benches: None, tiny_model: Path, tofu: Path, tmp_path: Path) -> None:
    import bench_verdicts

    twin = ["--authors", "4", "--rows", "4", "--epochs", "1", "--targets", "unseen", "--fit", *FIT]
    places = ["--data", tofu, "--work", tmp_path / "work", "--model", tiny_model, "--out", tmp_path / "verdicts.json"]
    line = [*map(str, places), "--ascent-steps", "2", "--twin", *twin]
    assert bench_verdicts.main(line) == 1, "a random model's layers do not get the verdicts that SmolLM2's do"
    found = json.loads((tmp_path / "verdicts.json").read_text())
    assert set(found["systems"]) == set(found["expected"]) == {"untouched", "twin", "bounded", "ascent"}
    assert all(system["means"]["forget"]["loss"] > 0 for system in found["systems"].values())
    record = json.loads((tmp_path / "work" / "twin.json").read_text())
    assert record["losses"].keys() == {"base", "taught", "twin"}
    layer = record["layers"]["unseen"]
    assert layer["target_nats"] == record["losses"]["taught"]["unseen"]
    assert layer["forget_from_twin_nats"] == pytest.approx(
        layer["losses"]["forget"] - record["losses"]["twin"]["forget"], abs=2e-4  # the record has four digits
    )  # fmt: skip
    steps = (tmp_path / "work" / "steps.jsonl").read_text()
    assert bench_verdicts.main(line) == 1
    assert (tmp_path / "work" / "steps.jsonl").read_text() == steps, "no step is run again"


def test_cost(benches: None, tiny_model: Path, tofu: Path, tmp_path: Path) -> None:
    import bench_cost

    places = ["--data", tofu, "--work", tmp_path / "work", "--model", tiny_model, "--out", tmp_path / "cost.json"]
    assert bench_cost.main([*map(str, places), "--shares", "0.1", "--epochs", "1", "--fit", *FIT]) == 0
    found = json.loads((tmp_path / "cost.json").read_text())
    share, rate = found["shares"]["10 %"], found["measured_teaching"]
    assert (share["forget_rows"], share["retain_rows"]) == (12, 108)
    assert share["retrain_seconds"] == pytest.approx(
        rate["milliseconds_per_token"] / 1000 * share["retain_tokens"], rel=1e-2, abs=2e-4  # four digits again
    )  # fmt: skip
    assert found["retrain_cost_ratio"]["10 %"] == share["ratio"] > 0
