"""The terms of objectives on what stands for logits, and counted over several processes."""

from __future__ import annotations

import pytest
import torch

from eul_serve.errors import EulError
from eul_trainer.forward.head import expect, score
from eul_trainer.objectives.terms import counted_over, cross_entropy, dense, divergence, loudness, mean

STATES, OTHERS = (torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
HEAD = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
TARGETS = torch.tensor([0, 3, 1, 4])


def test_what_stands_for_logits_gives_the_same_losses() -> None:
    student, teacher = score(STATES, HEAD), expect(OTHERS, HEAD, TARGETS)
    logits, expected = STATES @ HEAD.T, OTHERS @ HEAD.T
    torch.testing.assert_close(dense(student), logits)
    torch.testing.assert_close(cross_entropy(student, TARGETS), cross_entropy(logits, TARGETS))
    torch.testing.assert_close(cross_entropy(teacher, TARGETS), cross_entropy(expected, TARGETS))
    plain = divergence(expected, logits)
    torch.testing.assert_close(divergence(teacher, student), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(divergence(expected, student), plain, rtol=1e-4, atol=1e-5)
    with pytest.raises(EulError, match="expected logits of the teacher, found expected rows"):
        divergence(teacher, logits)


def test_logits_are_read_in_float32() -> None:
    half = (STATES @ HEAD.T).to(torch.bfloat16)
    assert dense(half).dtype == torch.float32
    assert cross_entropy(half, TARGETS).dtype == torch.float32
    outputs = [(half, half)]
    assert loudness(outputs).dtype == torch.float32


def test_means_are_parts_of_the_mean_over_all_processes() -> None:
    """Two processes with 2 and 3 values: each gives its share, and the shares add up."""
    first, second = torch.tensor([1.0, 3.0]), torch.tensor([5.0, 7.0, 14.0])
    with counted_over(lambda count: 5):
        parts = [mean(first), mean(second)]
        assert [part.item() for part in parts] == pytest.approx([0.8, 5.2])
    assert sum(parts).item() == pytest.approx(6.0)  # type: ignore[union-attr]  # two tensors, so no bare 0
    assert mean(first).item() == 2.0
    with counted_over(lambda count: count):
        assert mean(first).item() == 2.0
        assert mean(torch.empty(0)).item() == 0.0


def test_the_count_is_over_one_process_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="stop"), counted_over(lambda count: 10):
        raise ValueError("stop")
    assert mean(torch.tensor([1.0, 3.0])).item() == 2.0
