"""Membership inference by hand-computed examples; its area by counting pairs, its interval by simulation."""

from __future__ import annotations

import math
import random
import zlib as compression

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_trainer.metrics.membership import scores
from eul_trainer.metrics.membership.auc import area, interval
from eul_trainer.metrics.membership.privleak import privleak
from eul_trainer.metrics.membership.tokens import TokenView
from eul_trainer.metrics.undefined import UndefinedError

VALUES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


def view(*logprobs: float, text: str = "an answer") -> TokenView:
    return TokenView(text=text, logprobs=logprobs)


def test_every_attack_by_hand() -> None:
    row = view(-1.0, -3.0, -5.0, -7.0, 0.0)
    assert row.loss == pytest.approx(3.2)
    assert scores.loss(row) == pytest.approx(-3.2)
    assert scores.zlib(row) == pytest.approx(-3.2 / len(compression.compress(b"an answer")))
    assert scores.min_k(row) == -7.0  # a fifth of five tokens
    assert scores.min_k(row, 0.4) == -6.0
    assert scores.min_k(row, 1.0) == pytest.approx(-3.2)
    assert scores.min_k(view(-2.0, -4.0)) == -4.0  # at least one token
    assert scores.reference(row, view(-4.2)) == pytest.approx(1.0)
    assert scores.recall(row, view(-6.4)) == pytest.approx(2.0)
    assert scores.recall(view(0.0), view(0.0)) == 1.0
    assert scores.recall(view(0.0), view(-1.0)) == math.inf


def test_min_k_plus_measures_tokens_in_their_own_deviations() -> None:
    row = TokenView(text="", logprobs=[-1.0, -4.0, -1.0], means=[-2.0, -2.0, -2.0], deviations=[0.5, 1.0, 0.0])
    assert scores.min_k_plus(row, 0.67) == pytest.approx((-2 + 2) / 2)  # 2, -2 and, of no deviation, 1e6
    assert scores.min_k_plus(row, 1.0) == pytest.approx(1e6 / 3)
    assert scores.min_k_plus(row) == pytest.approx(-2.0)


def test_attacks_score_what_was_learned_higher() -> None:
    known, unknown = view(-0.1, -0.2, -0.1), view(-2.0, -3.0, -4.0)
    for attack in (scores.loss, scores.zlib, scores.min_k):
        assert attack(known) > attack(unknown)
    assert scores.reference(known, unknown) > scores.reference(unknown, unknown)
    assert scores.recall(known, unknown) > scores.recall(unknown, unknown)


@given(VALUES, VALUES)
def test_the_area_is_the_share_of_pairs_that_are_in_order(members: list[float], others: list[float]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in members for b in others]
    found = area(members, others)
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert area(others, members).value == pytest.approx(1 - found.value)
    assert area([2 * a + 1 for a in members], [2 * b + 1 for b in others]).value == found.value
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low
    assert (found.members, found.others) == (len(members), len(others))


def test_an_end_of_the_interval_is_where_the_found_area_is_just_likely_enough() -> None:
    """Newcombe 2006, method 5: the standard error is that at the end itself, with N* = (m + n) / 2 - 1."""
    low, high = interval(0.8, 6, 10)
    for end, side in ((low, 1), (high, -1)):
        more = (6 + 10) / 2 - 1
        variance = end * (1 - end) * (1 + more * (1 - end) / (2 - end) + more * end / (1 + end)) / (6 * 10)
        assert end + side * 1.959963984540054 * math.sqrt(variance) == pytest.approx(0.8, abs=1e-9)


@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200))
def test_the_interval_does_not_know_which_set_is_which(value: float, first: int, second: int) -> None:
    low, high = interval(value, first, second)
    assert interval(value, second, first) == pytest.approx((low, high))
    assert interval(1 - value, first, second) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    narrow = interval(value, first, second, 0.5)
    assert low - 1e-12 <= narrow[0] <= narrow[1] <= high + 1e-12


def test_a_few_rows_told_apart_perfectly_prove_little() -> None:
    few, many = interval(1.0, 5, 5), interval(1.0, 200, 200)
    assert few[1] == many[1] == pytest.approx(1.0)
    assert 0.4 < few[0] < 0.75 < 0.95 < many[0]


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_the_interval_holds_the_true_area_as_often_as_it_says(shift: float) -> None:
    """Normal scores of 20 rows each: 95 % of 1,500 draws, less three deviations of that share at most."""
    draw = random.Random(7)
    true = 0.5 * (1 + math.erf(shift / 2))
    held = 0
    for _ in range(1500):
        found = area([draw.gauss(shift, 1) for _ in range(20)], [draw.gauss(0, 1) for _ in range(20)])
        held += found.low <= true <= found.high
    assert held / 1500 > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 1500)


def test_what_has_no_area_says_why() -> None:
    with pytest.raises(UndefinedError, match="0 forgotten and 2 unseen rows"):
        area([], [1.0, 2.0])
    with pytest.raises(UndefinedError, match="not a number"):
        area([math.nan], [1.0])


@pytest.mark.parametrize(
    ("found", "twin", "wanted"), [(1.0, 0.5, -100), (0.5, 0.5, 0), (0.25, 0.5, 50), (0.0, 0.6, 150)]
)
def test_privleak_has_the_sign_of_muse(found: float, twin: float, wanted: float) -> None:
    assert privleak(found, twin) == pytest.approx(wanted)


def test_privleak_needs_a_twin_that_forgot() -> None:
    with pytest.raises(UndefinedError, match="the twin has seen the rows"):
        privleak(0.5, 1.0)
