"""Objectives against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_trainer.objectives.bounded import BoundedWeights, bounded_loss
from eul_trainer.objectives.paper import PaperWeights, paper_loss
from eul_trainer.objectives.terms import (
    SURE,
    cross_entropy,
    divergence,
    forget_losses,
    hinge,
    loudness,
    mean,
    odds_against,
    retained,
    row_means,
    row_sums,
)
from eul_trainer.objectives.view import FORGET, MASKED, REFUSAL, RETAIN, View

LOG2 = math.log(2)


def logs(*probabilities: float) -> torch.Tensor:
    """Logits that give these probabilities."""
    return torch.tensor([probabilities]).log()


def test_cross_entropy_of_a_half_is_log_two() -> None:
    assert cross_entropy(logs(0.5, 0.25, 0.25), torch.tensor([0])).item() == pytest.approx(LOG2)


def test_divergence_is_teacher_first() -> None:
    # KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 log 2 + 1/2 log 2/3; the other way round it is 3/4 log 3/2 - 1/4 log 2.
    found = divergence(logs(0.5, 0.5), logs(0.25, 0.75)).item()
    assert found == pytest.approx(0.5 * LOG2 + 0.5 * math.log(2 / 3))
    assert found != pytest.approx(0.75 * math.log(1.5) - 0.25 * LOG2)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_divergence_is_never_negative_and_zero_for_the_same(first: float, second: float) -> None:
    teacher, student = torch.tensor([[first, 0.0]]), torch.tensor([[second, 0.0]])
    assert divergence(teacher, student).item() >= -1e-5
    assert divergence(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def against(loss: float) -> float:
    """Log-odds against a token of that loss: p = e^-loss, (1 - p) / p = e^loss - 1."""
    return math.log(math.exp(loss) - 1)


def test_the_odds_against_a_token_by_hand() -> None:
    """p = 1/2, 1/8 and 4/5: even, 7 to 1, 1 to 4."""
    losses = torch.tensor([LOG2, 3 * LOG2, math.log(5 / 4)])
    assert odds_against(losses).tolist() == pytest.approx([0, math.log(7), -math.log(4)], abs=1e-6)
    assert odds_against(torch.tensor(40.0)).item() == pytest.approx(40.0)


def test_what_is_known_by_heart_is_pulled_as_hard_as_what_is_not() -> None:
    """By the logit of the true token the log-odds fall by 1 wherever p is, and the loss by 1 - p."""
    logits = torch.tensor([[9.0, 2.5, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([1, 0])
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    odds_against(losses).sum().backward()
    assert logits.grad is not None
    assert logits.grad[[0, 1], targets].tolist() == pytest.approx([-1.0, -1.0])


def test_below_what_counts_as_sure_the_odds_go_on_straight() -> None:
    assert SURE == 1e-3
    losses = torch.tensor([0.0, 4e-4, SURE], dtype=torch.float64, requires_grad=True)
    found = odds_against(losses)
    found.sum().backward()
    slope = 1 / (1 - math.exp(-SURE))
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([slope] * 3)
    assert found.tolist() == pytest.approx([against(SURE) - slope * (SURE - loss) for loss in (0.0, 4e-4, SURE)])


def test_hinge_is_zero_inside_and_pulls_from_both_sides() -> None:
    found = hinge(torch.tensor([1.0, 4.0, 5.0, 7.0, 9.5]), 4, 7).tolist()
    assert found == pytest.approx([against(4) - against(1), 0.0, 0.0, 0.0, 2.5], abs=1e-6)


def test_loudness_is_relative_energy_over_tokens_and_blocks() -> None:
    y = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    # Block one: 25/25 and 0/1, mean 1/2. Block two: silent. Their mean is 1/4.
    outputs = [(y, torch.tensor([[5.0, 0.0], [0.0, 0.0]])), (y, torch.zeros(2, 2))]
    assert loudness(outputs).item() == pytest.approx(0.25)
    assert loudness([]).item() == 0


def test_loudness_is_told_apart_from_division_by_zero() -> None:
    assert loudness([(torch.zeros(1, 2), torch.tensor([[1e-6, 0.0]]))]).item() == pytest.approx(1, rel=1e-4)


def test_the_mean_of_nothing_is_zero() -> None:
    assert mean(torch.empty(0)).item() == 0


def test_rows_are_summed_and_averaged_in_the_order_of_their_numbers() -> None:
    values, rows = torch.tensor([1.0, 2.0, 3.0, 10.0, 5.0]), torch.tensor([7, 2, 2, 4, 7])
    assert row_sums(values, rows).tolist() == [5.0, 10.0, 6.0]
    assert row_means(values, rows).tolist() == [2.5, 10.0, 3.0]


def test_the_retain_term_is_the_loss_or_the_divergence_of_retained_tokens() -> None:
    view = make_view()
    assert retained(view, "nll").item() == pytest.approx(2 * LOG2, rel=1e-5)
    assert retained(view, "kl").item() == pytest.approx(KL_RETAIN, rel=1e-5)
    assert forget_losses(view).tolist() == pytest.approx([3 * LOG2], rel=1e-5)


def make_view() -> View:
    """One token of each part: forget p=1/8 (teacher 1/2), retain p=1/4 (teacher 1/2), refusal p=1/2."""
    return View(
        logits=torch.cat([logs(1 / 8, 7 / 8), logs(1 / 4, 3 / 4), logs(1 / 2, 1 / 2)]).requires_grad_(),
        teacher=torch.cat([logs(1 / 2, 1 / 2), logs(1 / 2, 1 / 2), torch.zeros(1, 2)]),
        targets=torch.zeros(3, dtype=torch.long),
        part=torch.tensor([FORGET, RETAIN, REFUSAL]),
        rows=torch.tensor([0, 1, 2]),
        outputs=[(torch.tensor([[2.0]]), torch.tensor([[0.2]]))],
    )


KL_FORGET = 0.5 * math.log(4) + 0.5 * math.log(4 / 7)
KL_RETAIN = 0.5 * LOG2 + 0.5 * math.log(2 / 3)


def test_bounded_is_the_weighted_sum_of_its_terms() -> None:
    weights = BoundedWeights(alpha=2, forget=0.3, cap=3, task=1, gamma=0.2, low=4, high=7, silence=600, refusal=0.5)
    found = bounded_loss(make_view(), weights)
    # Forget loss log 8, odds 7 to 1, is below 4; retain loss log 4 is log 2 above the teacher's; 0.2^2 / 2^2 = 0.01.
    expected = 2 * KL_RETAIN - 0.3 * KL_FORGET + LOG2 + 0.2 * (against(4) - math.log(7)) + 600 * 0.01 + 0.5 * LOG2
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.parts["forget"].item() == pytest.approx(3 * LOG2)
    assert found.parts["retain"].item() == pytest.approx(2 * LOG2)


def test_bounded_has_no_gradient_beyond_its_bounds() -> None:
    view = make_view()
    free = BoundedWeights(alpha=0, task=0, silence=0, refusal=0, cap=0.01, low=1, high=7)
    bounded_loss(view, free).total.backward()
    assert view.logits.grad is not None
    assert view.logits.grad.abs().max().item() == 0


@given(st.floats(0, 1e4))
def test_bounded_never_falls_below_its_cap(gap: float) -> None:
    """However far the forget logits run, the loss is at least minus the weighted cap."""
    view = View(
        logits=torch.tensor([[-gap, gap]]), teacher=torch.tensor([[5.0, 0.0]]), targets=torch.tensor([0]),
        part=torch.tensor([FORGET]), rows=torch.tensor([0]),
    )  # fmt: skip
    weights = BoundedWeights()
    assert bounded_loss(view, weights).total.item() >= -weights.forget * weights.cap - 1e-5


def test_bounded_counts_each_side_of_the_hinge_and_the_cap_per_token() -> None:
    """Two tokens on the two sides of hinge and cap: means of bounded tokens, not bounds of means."""
    losses = torch.tensor([0.5, 9.0])  # nats; the true token is the first of two
    first = (-losses).exp()
    view = View(
        logits=torch.stack([first, 1 - first], 1).log(), teacher=torch.zeros(2, 2),
        targets=torch.zeros(2, dtype=torch.long), part=torch.tensor([FORGET, FORGET]), rows=torch.tensor([0, 1]),
    )  # fmt: skip
    found = bounded_loss(view, BoundedWeights(forget=1, gamma=1, cap=2, low=4, high=7))
    kl = [-LOG2 - 0.5 * (math.log(p) + math.log(1 - p)) for p in first.tolist()]
    assert kl[0] < 2 < kl[1]
    pull = against(4) - against(0.5)
    assert found.total.item() == pytest.approx(-(kl[0] + 2) / 2 + (pull + 2) / 2, rel=1e-4)
    assert found.parts["hinge"].item() == pytest.approx((pull + 2) / 2, rel=1e-4)
    assert found.parts["kl_forget"].item() == pytest.approx(sum(kl) / 2, rel=1e-4)


def test_bounded_tells_its_parts() -> None:
    parts = bounded_loss(make_view(), BoundedWeights()).parts
    expected = {
        "forget": 3 * LOG2, "retain": 2 * LOG2, "kl_forget": KL_FORGET, "kl_retain": KL_RETAIN, "loudness": 0.01,
        "hinge": against(4) - math.log(7), "refusal": LOG2,
    }  # fmt: skip
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-5)


def test_paper_is_the_printed_objective() -> None:
    found = paper_loss(make_view(), PaperWeights())
    expected = 0.8 * KL_RETAIN - KL_FORGET + 2 * LOG2 - 0.2 * 3 * LOG2
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    parts = {"forget": 3 * LOG2, "retain": 2 * LOG2, "kl_forget": KL_FORGET, "kl_retain": KL_RETAIN}
    assert {name: part.item() for name, part in found.parts.items()} == pytest.approx(parts, rel=1e-5)


def test_paper_takes_masked_words_for_its_language_term_where_the_model_has_them() -> None:
    view = make_view()
    masked = replace(view, part=torch.tensor([FORGET, RETAIN, MASKED]), masked=True)
    found = paper_loss(masked, PaperWeights(alpha=0.3, task=0.7, gamma=0.5))
    expected = 0.3 * KL_RETAIN - KL_FORGET + 0.7 * 2 * LOG2 - 0.5 * LOG2  # the masked word has probability 1/2
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.parts["masked"].item() == pytest.approx(LOG2, rel=1e-5)


def test_bounded_does_not_reward_beating_the_teacher() -> None:
    view = View(
        logits=logs(0.9, 0.1), teacher=logs(0.5, 0.5), targets=torch.zeros(1, dtype=torch.long),
        part=torch.tensor([RETAIN]), rows=torch.tensor([0]),
    )  # fmt: skip
    assert bounded_loss(view, BoundedWeights(alpha=0)).total.item() == 0
