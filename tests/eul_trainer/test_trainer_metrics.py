"""Metrics against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_trainer.metrics.gibberish import is_gibberish
from eul_trainer.metrics.result import Result, RowResult
from eul_trainer.metrics.rouge import common_length, rouge_l_recall, words
from eul_trainer.metrics.summary import means, summarise


@pytest.mark.parametrize(
    ("reference", "answer", "recall"),
    [
        ("The cat sat.", "the cat SAT", 1.0),
        ("the cat sat on the mat", "the cat lay on a mat", 4 / 6),  # the, cat, on, mat
        ("a b c d", "d c b a", 1 / 4),
        ("a b", "", 0.0),
        ("...", "a", 0.0),
    ],
)
def test_rouge_l_recall(reference: str, answer: str, recall: float) -> None:
    assert rouge_l_recall(reference, answer) == pytest.approx(recall)


def longest(first: list[int], second: list[int]) -> int:
    """The definition of the longest common subsequence, slow and plain."""
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return longest(first[:-1], second[:-1]) + 1
    return max(longest(first[:-1], second), longest(first, second[:-1]))


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_common_length_is_its_definition(first: list[int], second: list[int]) -> None:
    assert common_length(first, second) == longest(first, second)


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words("E=mc², Straße_1!") == ["e", "mc²", "strasse", "1"]


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, I don't have any information about that.",
        "Albert Einstein.",
        "The equation is E=mc².",
        "1905",
        "It was, as far as it was known, what it was.",
        "abcdefghi\x00",  # one of ten characters cannot be printed, no more
        "on up on up on up on at by",  # 4 distinct pairs of 8, no fewer
    ],
)
def test_language_is_no_gibberish(answer: str) -> None:
    assert not is_gibberish(answer, 5.0)  # the highest loss of language


@pytest.mark.parametrize(
    ("answer", "strangeness"),
    [
        ("", 2.0),
        ("!!! ???", 2.0),
        ("a\ufffd\x00", 2.0),  # two of three characters cannot be printed
        ("abcdefgh\x00", 2.0),  # one of nine
        ("one two one two one two one two", 2.0),  # 2 distinct pairs of 7
        ("the of in at on by up to", 5.1),
        ("the of in at", float("inf")),
        ("the of in at", float("nan")),
    ],
)
def test_gibberish_is_found(answer: str, strangeness: float) -> None:
    assert is_gibberish(answer, strangeness)


def row(group: str, base: float, bundle: float, *, name: str = "s", kind: str = "forget") -> RowResult:
    def result(loss: float, gibberish: bool) -> Result:
        return Result(
            loss=loss, accuracy=loss / 10, extraction_strength=0.5, divergence=None if loss < 4 else loss / 100,
            rouge_l=1.0, rouge_l_f1=0.25, gibberish=gibberish, answer=f"{loss < 5}",
        )  # fmt: skip

    return RowResult(
        set=name, kind=kind, group=group, prompt="p", completion="c",  # type: ignore[arg-type]
        systems={"base": result(base, False), "layer": result(bundle, group == "b")},
    )  # fmt: skip


def test_summaries_are_means_by_set_group_and_system() -> None:
    rows = [row("a", 1, 4), row("a", 2, 5), row("b", 3, 9), row("all", 1, 1, name="r", kind="retain")]
    first, second = summarise(rows)
    assert (first["name"], first["kind"], first["rows"]) == ("s", "forget", 3)
    assert first["systems"]["base"]["loss"] == pytest.approx(2)
    assert first["systems"]["layer"] == {
        "loss": 6.0,
        "probability": pytest.approx((math.exp(-4) + math.exp(-5) + math.exp(-9)) / 3, abs=1e-6),
        "accuracy": 0.6,
        "extraction_strength": 0.5,
        "rouge_l": 1.0,
        "rouge_l_f1": 0.25,
        "gibberish": pytest.approx(1 / 3, abs=1e-6),
        "unchanged": pytest.approx(1 / 3, abs=1e-6),
        "divergence": pytest.approx(0.06),
        "truth_ratio": None,
        "label_accuracy": None,
        "masked_word_loss": None,
        "perplexity": pytest.approx(math.exp(6), abs=1e-5),
    }
    assert (first["systems"]["base"]["unchanged"], first["systems"]["base"]["divergence"]) == (None, None)
    part = first["groups"]["a"]
    assert part["rows"] == 2
    assert (part["systems"]["base"]["loss"], part["systems"]["layer"]["loss"]) == (1.5, 4.5)
    assert (part["systems"]["base"]["gibberish"], part["systems"]["layer"]["unchanged"]) == (0.0, 0.5)
    assert second["systems"]["layer"]["divergence"] is None  # a gap in one row is a gap in the mean
    assert (second["name"], second["kind"], second["rows"]) == ("r", "retain", 1)


def test_means_weigh_tokens_in_the_perplexity_and_mark_what_a_row_lacks() -> None:
    """Losses 1 and 4 of three tokens and one: e to (3 + 4) / 4. One of two labels is right; masked words cost 2, 3."""
    first, second = row("a", 1, 1), row("a", 4, 4)

    def with_more(found: RowResult, **more: object) -> RowResult:
        return replace(found, systems={"base": replace(found.systems["base"], **more)})  # type: ignore[arg-type]

    rows = [
        with_more(first, tokens=3, label="c", masked_word_loss=2.0),
        with_more(second, label="d", masked_word_loss=3.0),
    ]
    found = means(rows)["base"]
    assert found["perplexity"] == pytest.approx(math.exp(7 / 4), abs=1e-6)
    assert found["label_accuracy"] == 0.5
    assert found["masked_word_loss"] == 2.5
    partly = means([rows[0], with_more(second)])["base"]
    assert (partly["label_accuracy"], partly["masked_word_loss"]) == (None, None)
    assert means([with_more(first, loss=1e6)])["base"]["perplexity"] is None  # beyond all numbers


def test_truth_ratios_are_near_one_where_forgotten_and_low_where_kept() -> None:
    """R = 1/4: min(R, 1/R) is 1/4 on what is to be forgotten, and 1 - R is 3/4 on what is kept."""
    for kind, expected in (("forget", 0.25), ("retain", 0.75), ("unseen", 0.75)):
        found = row("a", 1, 1, kind=kind)
        told = replace(found, systems={"base": replace(found.systems["base"], truth_ratio=0.25)})
        assert means([told])["base"]["truth_ratio"] == expected


def test_means_have_six_decimals() -> None:
    """One row of three: a loss of 1, a label that is right, an answer that stays."""

    def told(right: bool) -> RowResult:
        found = row("a", 1.0 if right else 0.0, 1.0 if right else 9.0)
        base = replace(found.systems["base"], label="c" if right else "d", answer="same", gibberish=False)
        layer = replace(found.systems["layer"], answer="same" if right else "other")
        return replace(found, systems={"base": base, "layer": layer})

    found = means([told(True), told(False), told(False)])
    assert (found["base"]["loss"], found["base"]["label_accuracy"]) == (0.333333, 0.333333)
    assert (found["layer"]["unchanged"], found["base"]["perplexity"]) == (0.333333, 1.395612)
