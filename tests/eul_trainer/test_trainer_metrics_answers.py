"""Measures of answers by hand-computed examples, their bounds and symmetries, and TOFU's published logs."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_trainer.metrics.exact_memorisation import exact_memorisation
from eul_trainer.metrics.extraction_strength import extraction_strength
from eul_trainer.metrics.model_utility import SetUtility, model_utility
from eul_trainer.metrics.perplexity import perplexity
from eul_trainer.metrics.probability import probability, share_of_options
from eul_trainer.metrics.truth_ratio import RATIOS, arithmetic, geometric, near_one, true_better
from eul_trainer.metrics.undefined import UndefinedError

LOSSES = st.floats(0, 50)
MATCHES = st.lists(st.booleans(), min_size=1, max_size=40)


def test_a_probability_is_the_geometric_mean_of_the_tokens() -> None:
    tokens = [0.5, 0.125]  # their product is 1/16, its square root 1/4
    loss = -statistics.mean(map(math.log, tokens))
    assert probability(loss) == pytest.approx(0.25)
    assert probability(0.0) == 1.0


def test_the_share_of_options_by_hand() -> None:
    """p = 1/2 against 1/4 and 1/8: 4 / (4 + 2 + 1)."""
    assert share_of_options(math.log(2), [math.log(4), math.log(8)]) == pytest.approx(4 / 7)
    assert share_of_options(2000.0, [2000.0, 2000.0, 2000.0]) == pytest.approx(0.25)  # where e^-2000 is zero
    assert share_of_options(2000.0, [1.0]) == 0.0


@given(LOSSES, st.lists(LOSSES, min_size=1, max_size=5))
def test_options_share_one_whole(true: float, others: list[float]) -> None:
    options = [true, *others]
    shares = [share_of_options(options[at], options[:at] + options[at + 1 :]) for at in range(len(options))]
    assert sum(shares) == pytest.approx(1)
    moved = share_of_options(true + 7, [other + 7 for other in others])
    assert moved == pytest.approx(shares[0], abs=1e-12)


def test_both_truth_ratios_by_hand() -> None:
    """p(a) = 1/2, p(w) = 1/4 and 1/16: means 5/32 and 1/8, so 5/16 and 1/4."""
    wrong = [math.log(4), math.log(16)]
    assert arithmetic(math.log(2), wrong) == pytest.approx(5 / 16)
    assert geometric(math.log(2), wrong) == pytest.approx(1 / 4)
    assert {"geometric": geometric, "arithmetic": arithmetic} == RATIOS


@given(LOSSES, st.lists(LOSSES, min_size=1, max_size=5))
def test_the_geometric_ratio_is_never_above_the_arithmetic_one(paraphrased: float, wrong: list[float]) -> None:
    assert geometric(paraphrased, wrong) <= arithmetic(paraphrased, wrong) * (1 + 1e-9)
    assert geometric(paraphrased, wrong[:1]) == pytest.approx(arithmetic(paraphrased, wrong[:1]))


@pytest.mark.parametrize(
    ("ratio", "near", "better"),
    [(0.0, 0.0, 1.0), (0.25, 0.25, 0.75), (1.0, 1.0, 0.0), (4.0, 0.25, 0.0), (math.inf, 0.0, 0.0)],
)
def test_scores_of_a_ratio(ratio: float, near: float, better: float) -> None:
    assert (near_one(ratio), true_better(ratio)) == (near, better)


@given(st.floats(1e-6, 1e6))
def test_near_one_does_not_know_which_is_which(ratio: float) -> None:
    assert near_one(ratio) == pytest.approx(near_one(1 / ratio))
    assert 0 <= near_one(ratio) <= 1


def test_ratios_too_large_for_a_number_are_infinite() -> None:
    assert geometric(2000.0, [1.0]) == math.inf
    assert arithmetic(2000.0, [1.0, 1999.0]) == math.inf


def utility(*parts: float) -> SetUtility:
    return SetUtility(probability=parts[0], rouge_l=parts[1], truth_ratio=parts[2])


def test_utility_is_the_harmonic_mean_of_all_parts() -> None:
    """Six parts: 6 / (1 + 2 + 4 + 1 + 1 + 1)."""
    assert model_utility([utility(1, 0.5, 0.25), utility(1, 1, 1)]) == pytest.approx(0.6)
    assert model_utility([utility(1, 0, 1)]) == 0
    with pytest.raises(UndefinedError, match="no rows to keep"):
        model_utility([])
    with pytest.raises(UndefinedError, match="not a number"):
        model_utility([utility(1, math.nan, 1)])


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.permutations(range(3)))
def test_utility_lies_between_the_least_part_and_the_mean(parts: list[float], order: list[int]) -> None:
    found = model_utility([utility(*parts)])
    assert min(parts) - 1e-9 <= found <= statistics.mean(parts) + 1e-9
    assert model_utility([utility(*(parts[at] for at in order))]) == pytest.approx(found)


def test_memorisation_by_hand() -> None:
    first = [True, False, True, True]
    assert exact_memorisation(first) == 0.75
    assert extraction_strength(first) == 0.5  # the last two follow from the first two
    assert extraction_strength([True] * 4) == 1.0
    assert extraction_strength([True, False]) == 0.0
    assert extraction_strength([True, False], published=True) == 0.5
    assert extraction_strength([True, False, True], published=True) == pytest.approx(1 / 3)
    for measure in (exact_memorisation, extraction_strength):
        with pytest.raises(UndefinedError, match="the answer has no token"):
            measure([])


@given(MATCHES)
def test_nobody_extracts_more_than_is_memorised(first: list[bool]) -> None:
    strength = extraction_strength(first)
    assert 0 <= strength <= exact_memorisation(first) <= 1
    assert exact_memorisation(first) == pytest.approx(exact_memorisation(first[::-1]))
    assert extraction_strength([False, *first]) * (len(first) + 1) == pytest.approx(strength * len(first))


def test_perplexity_weighs_tokens_and_not_rows() -> None:
    """Three tokens of probability 1/2 and one of 1/32: (2^3 2^5)^(1/4) = 4."""
    assert perplexity([math.log(2), math.log(32)], [3, 1]) == pytest.approx(4)
    assert perplexity([1e5], [3]) == math.inf
    with pytest.raises(UndefinedError, match="no token"):
        perplexity([], [])


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 9)), min_size=1, max_size=6))
def test_perplexity_of_one_row_is_that_of_its_halves(rows: list[tuple[float, int]]) -> None:
    losses, tokens = [loss for loss, _ in rows], [count for _, count in rows]
    whole = perplexity(losses, tokens)
    assert perplexity([*losses, *losses], [*tokens, *tokens]) == pytest.approx(whole)
    assert whole == pytest.approx(math.exp(sum(Fraction(a) * b for a, b in rows) / sum(tokens)), rel=1e-9)
