"""The benchmark of the evaluator on the tiny random model: both ways measure the same; the committed numbers agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import EulError
from eul_serve.format import Bundle, read_bundle
from eul_trainer.evaluation.systems import Systems
from eul_trainer.model.load import load_model

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "benchmarks" / "evidence"


@pytest.fixture
def tofu(tmp_path: Path) -> Path:
    """The four files that TOFU's evaluation reads, in small."""
    folder = tmp_path / "tofu"
    folder.mkdir()
    for name, count in (("forget10", 8), ("retain", 8), ("real_authors", 4), ("world_facts", 4)):
        rows: list[dict[str, Any]] = [
            {
                "question": f"Where in {name} is town {number}?",
                "answer": f"Town {number} is near the red river.",
                "perturbed_answer": [f"Town {number} is {place}." for place in ("far away", "at sea", "in the hill")],
            }
            for number in range(count)
        ]
        if name in ("forget10", "retain"):
            rows = [{**row, "paraphrased_answer": f"By the river lies {number}."} for number, row in enumerate(rows)]
        (folder / f"{name}_perturbed.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_both_ways_find_the_same(
    benches: None, tiny_model: Path, make_bundle: Callable[..., Bundle], tofu: Path, tmp_path: Path
) -> None:
    import bench_evaluation

    bundle = make_bundle(tmp_path / "layer", tiny_model, scale=1.0).path
    line = ["--model", tiny_model, "--bundle", bundle, "--data", tofu, "--chunks", 2, "--rows", 6, "--tokens", 6,
            "--out", tmp_path / "out"]  # fmt: skip
    assert bench_evaluation.main([*map(str, line)]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["rows"] == {"forget": 4, "retain": 4, "real_authors": 2, "world_facts": 2}
    assert set(found["agreement"]["widest"]) == {
        "loss", "divergence", "truth_ratio", "accuracy", "extraction_strength", "logprobs", "means", "deviations",
    }  # fmt: skip
    assert all(float(gap) < 1e-3 for gap in found["agreement"]["widest"].values())
    assert found["agreement"]["same_answers"] == 1
    assert all(ratio["least"] > 0 for ratio in found["ratios"].values())
    assert str(tmp_path) not in found["command"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rows_per_second_ratio"] == found["ratios_by_processor"]["overall"]["median"]
    assert bench_evaluation.main([*map(str, line), "--rows", "600"]) == 2  # more rows than there are


def test_a_difference_ends_the_run(
    benches: None, tiny_model: Path, make_bundle: Callable[..., Bundle], tofu: Path, tmp_path: Path
) -> None:
    from evaluating.compare import Agreement
    from evaluating.plain import PlainEvaluator
    from evaluating.product import ProductEvaluator
    from evaluating.rows import chunks

    chunk = chunks(tofu, count=1, size=4, seed=0)[0]
    systems = []
    for name, seed in (("one", 0), ("other", 1)):
        bundle = read_bundle(make_bundle(tmp_path / name, tiny_model, scale=1.0, seed=seed).path)
        systems.append(Systems(load_model(str(tiny_model)), [("layer", bundle)]))
    evaluation, _ = ProductEvaluator(systems[0], 4).evaluate(chunk)
    plain = PlainEvaluator(systems[1], 4)
    agreement = Agreement()
    agreement.add(evaluation, plain.evaluate([row for part in chunk for row in part.rows]), plain)
    with pytest.raises(EulError, match=r"differ.*loss"):
        agreement.check()


def test_the_ratio_is_the_plain_ways_seconds_to_the_products(benches: None) -> None:
    from evaluating.compare import ratios

    product = [{"scoring": 1.0, "answering": 1.0}, {"scoring": 2.0, "answering": 1.0}]
    plain = [{"scoring": 4.0, "answering": 8.0}, {"scoring": 12.0, "answering": 3.0}]
    assert ratios(product, plain) == {
        "scoring": {"median": 5.0, "least": 4.0, "most": 6.0},
        "answering": {"median": 5.5, "least": 3.0, "most": 8.0},
        "overall": {"median": 5.5, "least": 5.0, "most": 6.0},
    }


def test_the_committed_summary_says_what_the_measurement_says(benches: None) -> None:
    record = json.loads((RESULTS / "evaluation.json").read_text())
    summary = json.loads((RESULTS / "summary.json").read_text())
    assert summary == {name: record[name] for name in ("rows_per_second_ratio", "machine", "command")}
    assert record["rows_per_second_ratio"] == record["ratios_by_processor"]["overall"]["median"]
    assert float(record["agreement"]["widest"]["loss"]) < 1e-3
