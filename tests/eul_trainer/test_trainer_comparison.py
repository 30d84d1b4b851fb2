"""What an evaluation says beside a twin and of unseen rows: by hand, with every gap marked, and through the command."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eul_serve.errors import InputError
from eul_serve.format import Bundle
from eul_trainer.cli import main as cli
from eul_trainer.evaluation.comparison import compare
from eul_trainer.evaluation.evaluate import Evaluation
from eul_trainer.evaluation.ratios import ratios, variants
from eul_trainer.evaluation.view import View
from eul_trainer.metrics.result import Result, RowResult
from eul_trainer.records import Fields, Row, read_rows

from .conftest import RunTrainer, write_rows


def view(loss: float) -> View:
    state = base64.b64encode(np.array([loss, 1.0], np.float16).tobytes()).decode()
    return View(logprobs=[-loss], ranks=[int(loss >= 1)], means=[-2.0], deviations=[1.0], state=state)


def result(loss: float, ratio: float | None = None) -> Result:
    return Result(
        loss=loss, accuracy=0.5, extraction_strength=0.25, divergence=None, rouge_l=1 / (1 + loss), rouge_l_f1=0.5,
        gibberish=False, answer="x", truth_ratio=ratio,
    )  # fmt: skip


def evaluation(losses: dict[str, dict[str, list[float]]], ratio: dict[str, list[float]] | None = None) -> Evaluation:
    """From losses by kind and system; truth ratios of the forgotten rows by system."""
    rows, views = list[RowResult](), dict[str, list[View]]()
    for kind, systems in losses.items():
        for index in range(len(next(iter(systems.values())))):
            mine = ratio if kind == "forget" else None
            found = {name: result(part[index], mine[name][index] if mine else None) for name, part in systems.items()}
            rows.append(
                RowResult(set=kind, kind=kind, group="all", prompt="p", completion="c", systems=found)  # type: ignore[arg-type]
            )
            for name, part in systems.items():
                views.setdefault(name, []).append(view(part[index]))
    return Evaluation(rows=rows, views=views)


def test_forgotten_rows_beside_unseen_ones_and_the_twin() -> None:
    """Unseen rows have losses 3 and 5; the forgotten ones' areas are counted by pairs."""
    found = compare(
        evaluation(
            {
                "forget": {"base": [1.0, 2.0], "layer": [4.0, 6.0], "twin": [2.0, 4.0]},
                "unseen": {"base": [3.0, 5.0], "layer": [3.0, 5.0], "twin": [3.0, 5.0]},
            },
            {"base": [0.1, 0.2], "layer": [0.7, 0.8], "twin": [0.6, 0.9]},
        )
    )
    loss = {system: found.found[system]["forget"]["membership_loss"] for system in ("base", "layer", "twin")}
    assert [loss[system]["value"] for system in ("base", "layer", "twin")] == [1.0, 0.25, 0.75]
    assert (loss["base"]["members"], loss["base"]["others"]) == (2, 2)
    assert loss["base"]["privleak"] == pytest.approx(-100)  # every forgotten row still looks trained on
    assert loss["layer"]["privleak"] == pytest.approx(200)  # 1 - area is 0.75 beside the twin's 0.25
    assert loss["twin"]["privleak"] is None
    reference = found.found["layer"]["forget"]["membership_reference"]
    assert reference["value"] == 0.0  # higher losses than the twin's where forgotten, equal ones where unseen
    quality = {system: found.found[system]["forget"]["forget_quality"] for system in ("base", "layer")}
    assert quality["base"]["p"] == pytest.approx(1 / 3)
    assert (quality["base"]["side"], quality["base"]["rows"], quality["layer"]["p"]) == ("below", 2, 1.0)
    distance = found.found["base"]["forget"]["twin_distance"]
    assert distance["differences"]["rouge_l"] == pytest.approx((1 / 2 + 1 / 3) / 2 - (1 / 3 + 1 / 5) / 2, abs=1e-6)
    assert distance["differences"]["accuracy"] == 0
    assert "twin_distance" not in found.found["twin"].get("forget", {})
    why = {(gap["system"], gap["set"], gap["measure"]): gap["why"] for gap in found.gaps}
    assert "give --twin" in why["twin", "forget", "membership_reference"]
    assert "no rows to keep" in why["base", "retain", "model_utility"]


def test_the_classifier_reads_representations_and_is_told_which_rows_are_compared() -> None:
    """Each state holds its row's loss: forgotten rows lie beyond the unseen ones and among the retained ones."""
    losses = {
        "forget": {"base": [1.0, 1.1, 1.2, 1.3]},
        "unseen": {"base": [3.0, 3.1, 3.2, 3.3]},
        "retain": {"base": [0.9, 1.4, 0.8, 1.5]},
    }
    found = compare(evaluation(losses)).found["base"]["forget"]
    assert (found["membership_classifier"]["accuracy"], found["membership_classifier"]["value"]) == (1.0, 1.0)
    assert (found["membership_classifier"]["members"], found["membership_classifier"]["others"]) == (4, 4)
    assert found["paper_classifier"]["accuracy"] < 1
    why = {gap["measure"]: gap["why"] for gap in compare(evaluation({"forget": {"base": [1.0]}})).gaps}
    assert "1 and 0 rows" in why["membership_classifier"]
    assert "1 and 0 rows" in why["paper_classifier"]


def test_recall_compares_rows_behind_unseen_ones_with_the_other_unseen_ones() -> None:
    """Behind the prefix a forgotten row's loss goes from 1 to 3, and an unseen one's from 2 to 2."""
    plain = evaluation({"forget": {"base": [1.0]}, "unseen": {"base": [9.0, 2.0]}})
    behind = {"base": {0: view(3.0), 2: view(2.0)}}  # the first unseen row stands in the prefix
    found = compare(replace(plain, after_unseen=behind)).found["base"]["forget"]["membership_recall"]
    assert (found["value"], found["members"], found["others"]) == (1.0, 1, 1)
    why = {gap["measure"]: gap["why"] for gap in compare(plain).gaps}
    assert "give at least 2 unseen rows that leave room" in why["membership_recall"]


def test_what_has_no_value_is_a_gap_with_its_reason() -> None:
    found = compare(evaluation({"forget": {"base": [1.0], "twin": [2.0]}, "retain": {"base": [0.5], "twin": [0.5]}}))
    why = {(gap["set"], gap["measure"]): gap["why"] for gap in found.gaps if gap["system"] == "base"}
    assert "0 rows here and 0 of the twin have a truth ratio" in why["forget", "forget_quality"]
    assert "1 forgotten and 0 unseen rows" in why["forget", "membership_loss"]
    assert "rows of group 'all' lack paraphrased and wrong answers" in why["retain", "model_utility"]
    assert set(found.found["base"]["forget"]) == {"twin_distance"}
    alone = compare(evaluation({"forget": {"base": [1.0]}}))
    assert {gap["measure"] for gap in alone.gaps} == {
        "membership_loss", "membership_zlib", "membership_min_k", "membership_min_k_plus", "membership_reference",
        "membership_recall", "membership_classifier", "paper_classifier", "model_utility",
    }  # fmt: skip


def test_model_utility_is_taken_over_the_groups_of_what_is_kept() -> None:
    """Loss log 2 gives probability 1/2 and ROUGE-L 1 / (1 + log 2); R = 1/2 gives 1 - R = 1/2."""
    rows = [
        RowResult(
            set="retain",
            kind="retain",
            group=group,
            prompt="p",
            completion="c",
            systems={"base": result(math.log(2), 0.5)},
        )
        for group in ("authors", "facts")
    ]
    found = compare(Evaluation(rows=rows, views={"base": [view(math.log(2))] * 2}))
    expected = 3 / (2 + (1 + math.log(2)) + 2)
    assert found.found["base"]["retain"]["model_utility"] == pytest.approx(expected, abs=1e-5)


def test_truth_ratios_come_from_the_variants_of_a_row() -> None:
    row = Row(prompt="p", completion="c", extra={"paraphrased_answer": "b", "perturbed_answers": ["d", "e"]})
    assert [variant.completion for variant in variants(row)] == ["b", "d", "e"]
    found = ratios([view(1.0), view(2.0), view(3.0)])
    assert found["geometric"] == pytest.approx(math.exp(-1.5))
    assert found["arithmetic"] == pytest.approx((math.exp(-1) + math.exp(-2)) / 2)
    assert variants(Row(prompt="p", completion="c", extra={"paraphrased_answer": "b"})) == []
    assert ratios([]) == {"geometric": None, "arithmetic": None}
    for wrong in ([], "d", [1], [""]):
        bad = Row(prompt="p", completion="c", where="f:3", extra={**row.extra, "perturbed_answers": wrong})
        with pytest.raises(InputError, match="f:3: expected text in 'paraphrased_answer'"):
            variants(bad)


def test_reading_keeps_the_fields_it_is_asked_for(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "completion": "c", "a": [1], "b": 2}])
    assert read_rows(path, Fields(extra=("a", "z")))[0].extra == {"a": [1]}
    assert read_rows(path)[0].extra == {}


def test_eval_beside_a_twin_and_unseen_rows(
    tiny_model: Path, other_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path,
    trainer: RunTrainer, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def with_wrong(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "paraphrased_answer": "That is red.", "perturbed_answers": ["It is blue.", "It is a fish."]}

    rows = [json.loads(line) for line in (data / "first.jsonl").read_text().splitlines()]
    forget = write_rows(tmp_path / "alice.jsonl", [with_wrong(row) for row in rows[:6]])
    retain = write_rows(tmp_path / "kept.jsonl", [with_wrong(row) for row in rows[6:]])
    bundle = make_bundle(tmp_path / "layer", tiny_model)
    found = trainer("eval", "--model", tiny_model, "--bundle", bundle.path, "--forget", forget, "--retain", retain,
                    "--unseen", data / "second.jsonl", "--twin", other_model, "--answer-tokens", "4",
                    "--out", tmp_path / "report")  # fmt: skip
    assert found["systems"] == {"base": None, "layer": bundle.revision, "twin": None}
    assert [(part["name"], part["kind"], part["rows"]) for part in found["sets"]] == [
        ("alice", "forget", 6), ("retain", "retain", 6), ("unseen", "unseen", 12),
    ]  # fmt: skip
    forgotten = found["comparisons"]["layer"]["alice"]
    assert set(forgotten) == {
        "twin_distance", "forget_quality", "membership_loss", "membership_zlib", "membership_min_k",
        "membership_min_k_plus", "membership_reference", "membership_recall", "membership_classifier",
        "paper_classifier",
    }  # fmt: skip
    assert (forgotten["membership_loss"]["members"], forgotten["membership_loss"]["others"]) == (6, 12)
    assert forgotten["twin_distance"]["mean"] > 0
    assert found["comparisons"]["base"]["retain"]["model_utility"] == 0  # a random model repeats no word
    assert [gap["measure"] for gap in found["gaps"]] == ["membership_reference"]
    verdict = found["verdicts"]["layer"]
    assert not verdict["passed"]
    assert "alice: answers are no language" in verdict["sentence"]  # of a random model
    line = ["eval", "--model", tiny_model, "--bundle", bundle.path, "--forget", forget, "--retain", retain]
    more = ["--unseen", data / "second.jsonl", "--answer-tokens", "4", "--cache", tmp_path / "report.cache"]
    assert cli.run([*map(str, [*line, *more, "--out", tmp_path / "strict", "--enforce"])]) == 1
    assert "layer fails: " in capsys.readouterr().err
    assert (tmp_path / "strict" / "metrics.json").exists()  # what was measured is kept
    assert "twin" in (tmp_path / "report" / "report.html").read_text()
    losses = {name: part["loss"] for name, part in found["sets"][0]["systems"].items()}
    assert losses["twin"] != pytest.approx(losses["base"], abs=1e-3)
