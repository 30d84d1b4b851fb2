"""Measures of texts and of distance to the base model and to a twin: by hand, against SciPy, and on TOFU's logs."""

from __future__ import annotations

import json
import math
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_trainer.metrics.change import mean_divergence, unchanged_share
from eul_trainer.metrics.classification import accuracy, chosen_label
from eul_trainer.metrics.forget_quality import forget_quality
from eul_trainer.metrics.membership.classifier import separate
from eul_trainer.metrics.model_utility import SetUtility, model_utility
from eul_trainer.metrics.probability import probability, share_of_options
from eul_trainer.metrics.rouge import rouge_f1, rouge_l_recall
from eul_trainer.metrics.truth_ratio import geometric, true_better
from eul_trainer.metrics.twin_distance import twin_distance
from eul_trainer.metrics.undefined import UndefinedError

GOLDEN = Path(os.environ.get("EUL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "tofu-golden"
SAMPLES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=15)
TEXTS = st.text("ab ", max_size=12)


def test_forget_quality_by_hand() -> None:
    """Of C(4, 2) = 6 orders of two low and two high ratios, 2 part them completely."""
    found = forget_quality([0.1, 0.2], [0.3, 0.4])
    assert (found.statistic, found.side, found.rows, found.twin_rows) == (1.0, "below", 2, 2)
    assert found.p == pytest.approx(2 / 6)
    assert forget_quality([0.3, math.inf], [0.1, 0.2, 0.2]).side == "above"
    same = forget_quality([0.1, 0.2], [0.2, 0.1])
    assert (same.p, same.statistic, same.side) == (1.0, 0.0, "equal")
    for sample, twin in (([], [1.0]), ([1.0], [])):
        with pytest.raises(UndefinedError, match="have a truth ratio"):
            forget_quality(sample, twin)
    with pytest.raises(UndefinedError, match="not a number"):
        forget_quality([1.0], [math.nan])


@given(SAMPLES, SAMPLES)
def test_forget_quality_is_the_largest_step_between_two_distribution_functions(
    ratios: list[float], twin: list[float]
) -> None:
    steps = [
        sum(x <= at for x in ratios) / len(ratios) - sum(y <= at for y in twin) / len(twin) for at in (*ratios, *twin)
    ]
    found, turned = forget_quality(ratios, twin), forget_quality(twin, ratios)
    assert found.statistic == pytest.approx(max(map(abs, steps)), abs=1e-9)
    assert found.p == pytest.approx(turned.p, abs=1e-9)
    assert 0 <= found.p <= 1
    if max(steps) > -min(steps) + 1e-9:
        assert (found.side, turned.side) == ("below", "above")


def logged(name: str) -> dict[str, Any]:
    path = GOLDEN / name
    if not path.exists():
        pytest.skip(f"TOFU's published logs are not at {GOLDEN}; EUL_DATA names the folder above")
    return dict(json.loads(path.read_text()))


def ratios_of(log: dict[str, Any]) -> list[float]:
    paraphrased, wrong = log["avg_paraphrased_loss"], log["average_perturb_loss"]
    return [geometric(loss, wrong[row]) for row, loss in paraphrased.items()]


def utility_of(logs: dict[str, Any]) -> float:
    def likelihood(log: dict[str, Any], options: bool) -> float:
        right, wrong = log["avg_gt_loss"], log["average_perturb_loss"]
        return statistics.mean(
            share_of_options(loss, wrong[row]) if options else probability(loss) for row, loss in right.items()
        )

    names = ("eval_log.json", "eval_real_author_wo_options.json", "eval_real_world_wo_options.json")
    return model_utility(
        [
            SetUtility(
                probability=likelihood(logs[name], "real" in name),
                rouge_l=statistics.mean(logs[name]["rougeL_recall"].values()),
                truth_ratio=statistics.mean(map(true_better, ratios_of(logs[name]))),
            )
            for name in names
        ]
    )


def test_tofus_published_logs_give_its_published_numbers() -> None:
    """Llama-2-7B, 400 forgotten rows against the model that was taught the other 90 %: p, and both model utilities."""
    full, twin = logged("llama2-7b-full.json"), logged("llama2-7b-retain90.json")
    found = forget_quality(ratios_of(full["eval_log_forget.json"]), ratios_of(twin["eval_log_forget.json"]))
    assert f"{found.p:.3g}" == "1.83e-21"
    assert (found.rows, found.twin_rows) == (400, 400) or (found.rows, found.twin_rows) == (300, 300)
    assert (round(utility_of(full), 4), round(utility_of(twin), 4)) == (0.6227, 0.6137)


def test_rouge_by_hand() -> None:
    """Words 3 of 4 and 5: F1 6/9. Pairs "the cat" of 3 and 4: 2/7. Longest common subsequence "the cat sat": 6/9."""
    found = rouge_f1("the cat then sat", "The cat, was sat on.")
    assert found == pytest.approx({"rouge1": 6 / 9, "rouge2": 2 / 7, "rougeL": 6 / 9})
    assert rouge_f1("one", "two") == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    assert rouge_f1("", "") == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    assert rouge_f1("a a b", "a b b")["rouge1"] == pytest.approx(4 / 6)  # one a and one b are shared


@given(TEXTS, TEXTS)
def test_rouge_f1_does_not_know_which_text_is_the_reference(first: str, second: str) -> None:
    found = rouge_f1(first, second)
    assert found == pytest.approx(rouge_f1(second, first))
    assert all(0 <= value <= 1 for value in found.values())
    recalls = rouge_l_recall(first, second), rouge_l_recall(second, first)
    if all(recalls):
        assert found["rougeL"] == pytest.approx(statistics.harmonic_mean(recalls))


def test_the_likeliest_label_is_chosen() -> None:
    assert chosen_label({"positive": 1.5, "negative": 0.5}) == "negative"
    assert chosen_label({"positive": 0.5, "negative": 0.5}) == "positive"
    assert accuracy(["a", "b", "a"], ["a", "b", "b"]) == pytest.approx(2 / 3)
    for losses in ({}, {"a": 1.0, "b": math.nan}):
        with pytest.raises(UndefinedError, match="expected a number for each"):
            chosen_label(losses)
    with pytest.raises(UndefinedError, match="no rows"):
        accuracy([], [])


def test_change_by_hand() -> None:
    assert unchanged_share(["yes", "no", "no"], ["yes", "No", "no"]) == pytest.approx(2 / 3)
    assert mean_divergence([0.5, 0.1], [1, 3]) == pytest.approx(0.2)
    with pytest.raises(UndefinedError, match="no rows"):
        unchanged_share([], [])
    with pytest.raises(UndefinedError, match="no token"):
        mean_divergence([0.5], [0])
    with pytest.raises(UndefinedError, match="not a number"):
        mean_divergence([math.nan], [1])


def test_distance_to_the_twin_counts_both_sides_and_marks_gaps() -> None:
    found = twin_distance(
        {"rouge": 0.5, "probability": 0.1, "strength": math.nan, "recall": 1.0},
        {"rouge": 0.25, "probability": 0.35, "strength": 0.5},
    )
    assert found.differences == pytest.approx({"rouge": 0.25, "probability": -0.25})
    assert found.mean == pytest.approx(0.25)
    assert found.missing == ("strength", "recall")
    with pytest.raises(UndefinedError, match="no measure has a value on both sides"):
        twin_distance({"rouge": math.inf}, {"rouge": 0.5})


@given(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1), min_size=1))
def test_a_twin_is_at_no_distance_of_itself(measures: dict[str, float]) -> None:
    assert twin_distance(measures, measures).mean == 0
    moved = {name: value + 0.5 for name, value in measures.items()}
    assert twin_distance(moved, measures).mean == pytest.approx(twin_distance(measures, moved).mean) == 0.5


def test_a_classifier_tells_rows_apart_where_there_is_something_to_tell() -> None:
    chance = np.random.default_rng(0)
    first, second = chance.normal(size=(40, 8)), chance.normal(size=(60, 8))
    alike = separate(first, second)
    draws = [separate(chance.normal(size=(40, 8)), chance.normal(size=(60, 8))) for _ in range(12)]
    assert statistics.mean(draw.area.value for draw in draws) == pytest.approx(0.5, abs=0.1)
    assert statistics.mean(draw.accuracy for draw in draws) == pytest.approx(0.5, abs=0.1)
    assert (alike.area.members, alike.area.others) == (40, 60)
    shifted = separate(first + 3, second)
    assert shifted.accuracy > 0.95
    assert shifted.area.low > 0.9
    assert separate(second, first + 3).accuracy == pytest.approx(shifted.accuracy, abs=0.05)
    # Four of a kind beside sixty: always saying the larger one would be right for 94 % of the rows.
    assert separate(first[:4], second).accuracy < 0.8
    assert separate(first, second, seed=1) != alike
    with pytest.raises(UndefinedError, match="1 and 60 rows"):
        separate(first[:1], second)
    with pytest.raises(UndefinedError, match="not a number"):
        separate(first * math.nan, second)


def test_areas_agree_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    from eul_trainer.metrics.membership.auc import area

    chance = np.random.default_rng(1)
    for _ in range(20):
        members, others = chance.integers(0, 9, 30).astype(float), chance.integers(0, 7, 20).astype(float)
        expected = roc_auc_score([1] * 30 + [0] * 20, [*members, *others])
        assert area(members.tolist(), others.tolist()).value == pytest.approx(expected, abs=1e-9)


def test_the_classifiers_accuracy_is_the_mean_of_both_sets_and_two_rows_are_enough() -> None:
    """Nine of ten first rows lie at 1 and all twenty others at -1: 9/10 and 20/20 are told right."""
    found = separate(np.array([[1.0]] * 9 + [[-1.0]]), np.array([[-1.0]] * 20))
    assert found.accuracy == pytest.approx((0.9 + 1.0) / 2)
    # 60 of 100 at 1 against 40 of 100: the evidence is weak, log(60 / 40) in nats, and still taken.
    weak = separate(np.array([[1.0]] * 60 + [[-1.0]] * 40), np.array([[1.0]] * 40 + [[-1.0]] * 60))
    assert weak.accuracy == pytest.approx(0.6)
    assert separate(np.array([[1.0], [1.1]]), np.array([[-1.0], [-1.1]])).accuracy == 1.0
