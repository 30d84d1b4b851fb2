"""The arithmetic over mixed batches, both ways, against `LayerWeights.apply`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.engine.slots import Slots
from eul_serve.engine.step import Step
from eul_serve.errors import BundleMismatchError, CapacityError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS, LayerWeights

# Per dtype: a few units in the last place of values of order one, after sums over up to 24 products.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.12, torch.float16: 0.015}
SLOTS, MAX_RANK, WIDTH = 4, 8, 24


def random_layer(
    rank: int, activation: str, seed: int, *, bias: bool = True, dtype: torch.dtype = torch.float32
) -> LayerWeights:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) / WIDTH**0.5).to(dtype)

    return LayerWeights(draw(rank, WIDTH), draw(WIDTH, rank), draw(rank) if bias else None, activation)


layers = st.builds(
    random_layer,
    rank=st.integers(1, MAX_RANK),
    activation=st.sampled_from(sorted(ACTIVATION_FUNCTIONS)),
    seed=st.integers(0, 1000),
    bias=st.booleans(),
)


def expected_rows(output: torch.Tensor, rows: list[int], held: dict[int, LayerWeights]) -> torch.Tensor:
    return torch.stack([held[slot].apply(row) if slot in held else row for row, slot in zip(output, rows, strict=True)])


def run(slots: Slots, output: torch.Tensor, rows: list[int], *, fixed_shape: bool) -> torch.Tensor:
    step = Step(SLOTS, 64, torch.device("cpu"), fixed_shape=fixed_shape)
    step.set_rows(rows)
    found = output.clone()
    if step.mask is None:
        slots.apply(found, step)
    else:
        slots.apply_fixed_shape(found, step.mask)
    return found


@pytest.mark.parametrize("fixed_shape", [False, True])
@settings(deadline=None, max_examples=60)
@given(
    held=st.dictionaries(st.integers(0, SLOTS - 1), layers),
    rows=st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=32),
    seed=st.integers(0, 1000),
)
def test_mixed_batch_equals_the_reference(
    fixed_shape: bool, held: dict[int, LayerWeights], rows: list[int], seed: int
) -> None:
    slots = Slots(SLOTS, MAX_RANK, WIDTH, torch.float32, torch.device("cpu"))
    for slot, layer in held.items():
        slots.put(slot, layer)
    output = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(seed))
    found = run(slots, output, rows, fixed_shape=fixed_shape)
    torch.testing.assert_close(found, expected_rows(output, rows, held), rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("fixed_shape", [False, True])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_dtype_stays_within_its_table(dtype: torch.dtype, fixed_shape: bool) -> None:
    slots = Slots(SLOTS, MAX_RANK, WIDTH, dtype, torch.device("cpu"))
    held = {slot: random_layer(2 * slot + 2, "relu", slot, dtype=dtype) for slot in range(SLOTS)}
    for slot, layer in held.items():
        slots.put(slot, layer)
    rows = [0, 3, 3, -1, 2, 0, 1, 1, -1]
    output = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(7)).to(dtype)
    found = run(slots, output, rows, fixed_shape=fixed_shape)
    torch.testing.assert_close(found, expected_rows(output, rows, held), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("fixed_shape", [False, True])
def test_an_overflow_in_one_bundle_does_not_reach_another_row(fixed_shape: bool) -> None:
    slots = Slots(SLOTS, MAX_RANK, WIDTH, torch.float16, torch.device("cpu"))
    huge = LayerWeights(torch.full((1, WIDTH), 6e4).half(), torch.full((WIDTH, 1), 6e4).half(), None)
    mild = random_layer(4, "relu", 1, dtype=torch.float16)
    slots.put(0, huge)
    slots.put(1, mild)
    output = torch.ones(3, WIDTH).half()
    found = run(slots, output, [0, 1, -1], fixed_shape=fixed_shape)
    assert torch.isinf(found[0]).all()
    torch.testing.assert_close(found[1], mild.apply(output[1]), rtol=0, atol=TOLERANCE[torch.float16])
    assert torch.equal(found[2], output[2])


def test_rows_without_a_bundle_and_rows_beyond_the_step_keep_every_bit() -> None:
    slots = Slots(SLOTS, MAX_RANK, WIDTH, torch.float32, torch.device("cpu"))
    slots.put(2, random_layer(5, "gelu", 3))
    output = torch.randn(6, WIDTH)
    found = run(slots, output, [2, -1, 2], fixed_shape=False)  # six rows of output: three are padding
    assert torch.equal(found[1], output[1])
    assert torch.equal(found[3:], output[3:])


def test_a_slot_holds_nothing_of_its_former_bundle() -> None:
    slots = Slots(SLOTS, MAX_RANK, WIDTH, torch.float32, torch.device("cpu"))
    slots.put(0, random_layer(8, "relu", 1))
    slots.put(0, random_layer(2, "silu", 2, bias=False))
    output = torch.randn(2, WIDTH)
    for fixed_shape in (False, True):
        found = run(slots, output, [0, 0], fixed_shape=fixed_shape)
        expected = random_layer(2, "silu", 2, bias=False).apply(output)
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[torch.float32])
    slots.clear(0)
    assert torch.equal(run(slots, output, [0, 0], fixed_shape=True), output)


def test_refuses_a_rank_or_width_that_does_not_fit() -> None:
    slots = Slots(SLOTS, MAX_RANK, WIDTH, torch.float32, torch.device("cpu"))
    with pytest.raises(CapacityError, match="rank: expected at most 8, found 9"):
        slots.put(0, random_layer(9, "relu", 0))
    with pytest.raises(BundleMismatchError, match="width: expected 24, found 3"):
        slots.put(0, LayerWeights(torch.zeros(1, 3), torch.zeros(3, 1), None))


def test_neighbouring_rows_become_a_slice() -> None:
    step = Step(SLOTS, 8, torch.device("cpu"), fixed_shape=False)
    step.set_rows([-1, 1, 1, 0, 2, 0])
    rows = dict(step.groups)
    assert rows[1] == slice(1, 3)
    assert rows[2] == slice(4, 5)
    assert torch.equal(rows[0], torch.tensor([3, 5]))
    step.set_rows([-1, -1])
    assert step.groups == ()
