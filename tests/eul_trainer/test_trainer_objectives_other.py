"""The other objectives against their formulas in NumPy, on one small random batch, and which way each pushes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from eul_serve.errors import EulError
from eul_trainer.objectives import NAMES
from eul_trainer.objectives.ascent import AscentWeights, ascent_loss
from eul_trainer.objectives.bounded import BoundedWeights, bounded_loss
from eul_trainer.objectives.catalog import make_objective
from eul_trainer.objectives.dpo import DpoWeights, dpo_loss
from eul_trainer.objectives.graddiff import GradDiffWeights, graddiff_loss
from eul_trainer.objectives.npo import NpoWeights, npo_loss
from eul_trainer.objectives.paper import PaperWeights, paper_loss
from eul_trainer.objectives.rmu import RmuWeights, direction, rmu_loss
from eul_trainer.objectives.simnpo import SimNpoWeights, simnpo_loss
from eul_trainer.objectives.undial import UndialWeights, undial_loss
from eul_trainer.objectives.view import FORGET, MASKED, REFUSAL, RETAIN, Losses, States, View
from eul_trainer.settings import default_settings

Array = npt.NDArray[np.float64]

# Rows 0 and 1 are to be forgotten (2 and 3 tokens), 2 and 3 kept (2 and 1), 4 and 5 the refusals of 0 and 1 (1 and 2).
ROWS = np.array([0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 5])
PARTS = np.array([FORGET] * 5 + [RETAIN] * 3 + [REFUSAL] * 3)
F, R = PARTS == FORGET, PARTS == RETAIN


@pytest.fixture
def view() -> View:
    generator = torch.Generator().manual_seed(3)
    count, width = len(ROWS), 6
    logits, teacher, student, base = (torch.randn(count, width, generator=generator) * 2 for _ in range(4))
    return View(
        logits=logits.requires_grad_(),
        teacher=teacher,
        targets=torch.randint(width, (count,), generator=generator),
        part=torch.from_numpy(PARTS),
        rows=torch.from_numpy(ROWS),
        states=States(student=student.requires_grad_(), teacher=base),
    )


def log_softmax(logits: torch.Tensor) -> Array:
    values = logits.detach().double().numpy()
    found: Array = values - np.log(np.exp(values).sum(1, keepdims=True))
    return found


def nll(view: View, logits: torch.Tensor) -> Array:
    found: Array = -log_softmax(logits)[np.arange(len(ROWS)), view.targets.numpy()]
    return found


def sigmoid(value: Array) -> Array:
    return 1 / (1 + np.exp(-value))


def of_rows(values: Array, *rows: int) -> Array:
    return np.array([values[row == ROWS].sum() for row in rows])


def keep_term(view: View, kind: str) -> float:
    student, teacher = log_softmax(view.logits)[R], log_softmax(view.teacher)[R]
    if kind == "kl":
        return float((np.exp(teacher) * (teacher - student)).sum(1).mean())
    return float(nll(view, view.logits)[R].mean())


def assert_losses(found: Losses, total: float, **parts: float) -> None:
    assert found.total.item() == pytest.approx(total, rel=1e-4)
    assert {name: part.item() for name, part in found.parts.items()} == pytest.approx(parts, rel=1e-4)


def divergences(view: View) -> Array:
    student, teacher = log_softmax(view.logits), log_softmax(view.teacher)
    found: Array = (np.exp(teacher) * (teacher - student)).sum(1)
    return found


def test_bounded_averages_each_term_over_its_own_tokens(view: View) -> None:
    losses, own, kl = nll(view, view.logits), nll(view, view.teacher), divergences(view)
    outputs = [(torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))]  # 1/2 and 1/4
    weights = {"alpha": 1.1, "forget": 0.4, "cap": 1.5, "task": 1.3, "gamma": 0.6, "silence": 3.0, "refusal": 0.7}
    found = bounded_loss(replace(view, outputs=outputs), BoundedWeights(low=2.0, high=3.0, **weights))
    excess = np.maximum(losses[R] - own[R], 0).mean()
    odds = np.log(np.expm1(losses[F]))
    hinge = (np.maximum(np.log(np.expm1(2)) - odds, 0) + np.maximum(losses[F] - 3, 0)).mean()
    refused = losses[PARTS == REFUSAL].mean()
    total = 1.1 * kl[R].mean() - 0.4 * np.minimum(kl[F], 1.5).mean() + 1.3 * excess + 0.6 * hinge
    assert 0 < (kl[F] > 1.5).sum() < F.sum()  # so that every bound is seen
    assert excess > 0
    parts = {
        "forget": losses[F].mean(),
        "retain": losses[R].mean(),
        "kl_forget": kl[F].mean(),
        "kl_retain": kl[R].mean(),
    }
    more = {"hinge": hinge, "loudness": 0.375, "refusal": refused}
    assert_losses(found, total + 3 * 0.375 + 0.7 * refused, **parts, **more)


def test_paper_averages_each_term_over_its_own_tokens(view: View) -> None:
    losses, kl = nll(view, view.logits), divergences(view)
    parts = {
        "forget": losses[F].mean(),
        "retain": losses[R].mean(),
        "kl_forget": kl[F].mean(),
        "kl_retain": kl[R].mean(),
    }
    total = 1.1 * kl[R].mean() - kl[F].mean() + 1.3 * losses[R].mean()
    weights = PaperWeights(alpha=1.1, task=1.3, gamma=0.6)
    assert_losses(paper_loss(view, weights), total - 0.6 * losses[F].mean(), **parts)
    words = replace(view, part=torch.from_numpy(np.where(PARTS == REFUSAL, MASKED, PARTS)), masked=True)
    language = losses[PARTS == REFUSAL].mean()
    assert_losses(paper_loss(words, weights), total - 0.6 * language, masked=language, **parts)


def test_ascent_is_minus_the_forgotten_loss(view: View) -> None:
    losses = nll(view, view.logits)
    parts = {"forget": losses[F].mean(), "retain": losses[R].mean()}
    assert_losses(ascent_loss(view, AscentWeights(gamma=0.7)), -0.7 * losses[F].mean(), **parts)


@pytest.mark.parametrize("kind", ["nll", "kl"])
def test_graddiff_is_the_difference_of_two_losses(kind: str, view: View) -> None:
    lose, keep = nll(view, view.logits)[F].mean(), keep_term(view, kind)
    found = graddiff_loss(view, GradDiffWeights(gamma=0.7, alpha=1.3, retain=kind))
    assert_losses(found, 1.3 * keep - 0.7 * lose, forget=lose, retain=keep)


@pytest.mark.parametrize("kind", ["nll", "kl"])
def test_npo_reads_log_probabilities_of_whole_rows(kind: str, view: View) -> None:
    losses, keep = nll(view, view.logits), keep_term(view, kind)
    ratios = of_rows(nll(view, view.teacher) - losses, 0, 1)  # log p / p_teacher
    preference = float((-2 / 0.5 * np.log(sigmoid(-0.5 * ratios))).mean())
    found = npo_loss(view, NpoWeights(beta=0.5, gamma=0.7, alpha=1.3, retain=kind))
    assert_losses(found, 0.7 * preference + 1.3 * keep, forget=losses[F].mean(), retain=keep, preference=preference)


def test_npo_does_not_see_a_constant_added_to_all_logits(view: View) -> None:
    """Raw logits in place of log-probabilities would: the mistake in a known benchmark."""
    moved = replace(view, logits=view.logits + torch.arange(len(ROWS))[:, None])
    first, second = (npo_loss(given, NpoWeights()).total.item() for given in (view, moved))
    assert first == pytest.approx(second, rel=1e-5)


def test_npo_of_an_unchanged_model_is_known(view: View) -> None:
    """Every ratio is 1, so the term is -2/beta log(1/2)."""
    same = replace(view, logits=view.teacher)
    assert npo_loss(same, NpoWeights(beta=0.1)).parts["preference"].item() == pytest.approx(20 * np.log(2), rel=1e-5)


def test_simnpo_divides_by_the_length_and_takes_a_margin_off(view: View) -> None:
    losses, keep = nll(view, view.logits), keep_term(view, "kl")
    lengthwise = of_rows(losses, 0, 1) / np.array([2, 3])
    preference = float((-2 / 1.5 * np.log(sigmoid(1.5 * lengthwise - 0.4))).mean())
    found = simnpo_loss(view, SimNpoWeights(beta=1.5, margin=0.4, gamma=0.7, alpha=1.3, retain="kl"))
    assert_losses(found, 0.7 * preference + 1.3 * keep, forget=losses[F].mean(), retain=keep, preference=preference)


def test_dpo_prefers_the_refusal_of_the_same_question(view: View) -> None:
    losses, keep = nll(view, view.logits), keep_term(view, "kl")
    gained = nll(view, view.teacher) - losses
    margins = of_rows(gained, 4, 5) - of_rows(gained, 0, 1)
    preference = float((-2 / 0.5 * np.log(sigmoid(0.5 * margins))).mean())
    found = dpo_loss(view, DpoWeights(beta=0.5, gamma=0.7, alpha=1.3, retain="kl"))
    parts = {"forget": losses[F].mean(), "retain": keep, "refusal": losses[PARTS == REFUSAL].mean()}
    assert_losses(found, 0.7 * preference + 1.3 * keep, preference=preference, **parts)


def test_rmu_steers_forgotten_tokens_and_matches_retained_ones(view: View) -> None:
    assert view.states is not None
    student, base = view.states.student.detach().double().numpy(), view.states.teacher.double().numpy()
    drawn = torch.rand(6, generator=torch.Generator().manual_seed(5)).double().numpy()
    target = 2.5 * drawn / np.sqrt((drawn**2).sum())
    steered = float(((student[F] - target) ** 2).mean())
    matched = float(((student[R] - base[R]) ** 2).mean())
    losses = nll(view, view.logits)
    found = rmu_loss(view, RmuWeights(steering=2.5, alpha=7, direction=5))
    parts = {"forget": losses[F].mean(), "retain": losses[R].mean(), "steering": steered, "match": matched}
    assert_losses(found, steered + 7 * matched, **parts)


def test_rmu_has_one_direction_for_a_seed() -> None:
    assert torch.equal(direction(8, 1), direction(8, 1))
    assert not torch.equal(direction(8, 1), direction(8, 2))
    assert direction(8, 1).norm().item() == pytest.approx(1)
    assert (direction(1000, 0) > 0).all()  # entries from [0, 1), as in the authors' code


def test_rmu_without_block_outputs_says_so(view: View) -> None:
    with pytest.raises(EulError, match="expected the outputs of a block"):
        rmu_loss(replace(view, states=None), RmuWeights())


def test_undial_distils_from_the_teacher_without_the_true_token(view: View) -> None:
    losses, keep = nll(view, view.logits), keep_term(view, "nll")
    adjusted = view.teacher.double().numpy().copy()
    adjusted[np.arange(len(ROWS)), view.targets.numpy()] -= 1.5
    wanted = np.exp(log_softmax(torch.from_numpy(adjusted)))
    distilled = float(-(wanted * log_softmax(view.logits)).sum(1)[F].mean())
    found = undial_loss(view, UndialWeights(beta=1.5, gamma=0.7, alpha=1.3))
    assert_losses(found, 0.7 * distilled + 1.3 * keep, forget=losses[F].mean(), retain=keep, distilled=distilled)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "rmu"])
def test_descent_lowers_forgotten_answers_and_raises_kept_ones(name: str, view: View) -> None:
    """At the start the student is the teacher; there the true token's logit must fall on rows to forget.

    The divergences of `paper` have no gradient there, but its language term has.
    """
    logits = view.teacher.clone().requires_grad_()
    make_objective(default_settings(name))(replace(view, logits=logits)).total.backward()
    assert logits.grad is not None
    true = logits.grad[torch.arange(len(ROWS)), view.targets].numpy()
    assert (true[F] > 0).all()
    if name in ("bounded", "ascent"):  # one holds what is kept only once it has moved, the other never
        assert np.abs(true[R]).max() < 1e-6
    else:
        assert (true[R] < 0).all()
    if name in ("bounded", "dpo"):
        assert (true[PARTS == REFUSAL] < 0).all()


def test_rmu_descends_towards_its_target_and_the_base_model(view: View) -> None:
    assert view.states is not None
    make_objective(default_settings("rmu"))(view).total.backward()
    gradient, student = view.states.student.grad, view.states.student.detach()
    assert gradient is not None
    assert torch.equal((student - 6.5 * direction(6, 0))[F].sign(), gradient[F].sign())
    assert torch.equal((student - view.states.teacher)[R].sign(), gradient[R].sign())
    assert not gradient[PARTS == REFUSAL].any()
