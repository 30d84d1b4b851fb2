"""The arithmetic over mixed batches, by every kernel, against `LayerWeights.apply`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.engine.kernels.group import Group
from eul_serve.engine.kernels.table import KERNELS, KernelTable, Shape
from eul_serve.engine.slot_table import SlotTable
from eul_serve.engine.slots import Slots
from eul_serve.engine.step import Step, group_rows
from eul_serve.errors import BundleMismatchError, CapacityError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS, LayerWeights

# Per dtype: a few units in the last place of values of order one, after sums over up to 24 products.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.12, torch.float16: 0.015}
SLOTS, MAX_RANK, WIDTH = 4, 8, 24
CPU = torch.device("cpu")
WAYS = (*KERNELS, "masked")
"""Every kernel for groups, and the one that a CUDA graph records."""


class Always(KernelTable):
    """One kernel wherever it is possible."""

    def __init__(self, name: str) -> None:
        super().__init__({})
        self.name = name

    def choose(self, group: Group) -> object:
        return KERNELS[self.name if group.neighbours or self.name != "stacked" else "apart"]


class Held:
    """A block's slots and the model's table of them."""

    def __init__(self, layers: dict[int, LayerWeights], dtype: torch.dtype = torch.float32) -> None:
        self.table = SlotTable(SLOTS, MAX_RANK, CPU)
        self.slots = Slots(SLOTS, MAX_RANK, WIDTH, dtype, CPU)
        for slot, layer in layers.items():
            self.put(slot, layer)

    def put(self, slot: int, layer: LayerWeights) -> None:
        self.slots.put(slot, layer)
        self.table.take(slot, len(layer.down), layer.activation)


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


def run(held: Held, output: torch.Tensor, rows: list[int], way: str) -> torch.Tensor:
    step = Step(
        held.table, 64, CPU, kernels=None if way == "masked" else Always(way), fixed_shape=way == "masked"
    )  # fmt: skip
    step.set_rows(rows)
    found = output.clone()
    for one in step.runs:
        one(found, held.slots)
    return found


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None, max_examples=60)
@given(
    held=st.dictionaries(st.integers(0, SLOTS - 1), layers),
    rows=st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=32),
    seed=st.integers(0, 1000),
)
def test_mixed_batch_equals_the_reference(way: str, held: dict[int, LayerWeights], rows: list[int], seed: int) -> None:
    output = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(seed))
    found = run(Held(held), output, rows, way)
    torch.testing.assert_close(found, expected_rows(output, rows, held), rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_dtype_stays_within_its_table(dtype: torch.dtype, way: str) -> None:
    held = {slot: random_layer(2 * slot + 2, "relu", slot, dtype=dtype) for slot in range(SLOTS)}
    rows = [0, 3, 3, -1, 2, 0, 1, 1, -1]
    output = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(7)).to(dtype)
    found = run(Held(held, dtype), output, rows, way)
    torch.testing.assert_close(found, expected_rows(output, rows, held), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("rank", [8, 16, 64, 480])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_parity_at_the_ranks_of_one_ten_and_thirty_requests(way: str, dtype: torch.dtype, rank: int) -> None:
    """Float32 within 1e-4; bfloat16 within a unit in the last place of the largest value."""
    width, rows = 96, [0, 1, 1, 0, 2, -1, 2, 2]
    generator = torch.Generator().manual_seed(rank)
    table, slots = SlotTable(3, 512, CPU), Slots(3, 512, width, dtype, CPU)
    held = {}
    for slot in range(3):
        down, up = (torch.randn(rank, width, generator=generator) / width**0.5 for _ in range(2))
        held[slot] = LayerWeights(
            down.to(dtype), (up.T / rank**0.5).to(dtype).contiguous(), torch.zeros(rank).to(dtype)
        )
        slots.put(slot, held[slot])
        table.take(slot, rank, "relu")
    output = torch.randn(len(rows), width, generator=generator).to(dtype)
    step = Step(table, 8, CPU, kernels=None if way == "masked" else Always(way), fixed_shape=way == "masked")
    step.set_rows(rows)
    found = output.clone()
    for one in step.runs:
        one(found, slots)
    expected = expected_rows(output, rows, held)
    ulp = float(expected.abs().max()) * 2**-7
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 if dtype == torch.float32 else ulp)


@pytest.mark.parametrize("way", WAYS)
def test_an_overflow_in_one_bundle_does_not_reach_another_row(way: str) -> None:
    huge = LayerWeights(torch.full((4, WIDTH), 6e4).half(), torch.full((WIDTH, 4), 6e4).half(), None)
    mild = random_layer(4, "relu", 1, dtype=torch.float16)
    output = torch.ones(3, WIDTH).half()
    found = run(Held({0: huge, 1: mild}, torch.float16), output, [0, 1, -1], way)
    assert torch.isinf(found[0]).all()
    torch.testing.assert_close(found[1], mild.apply(output[1]), rtol=0, atol=TOLERANCE[torch.float16])
    assert torch.equal(found[2], output[2])


@pytest.mark.parametrize("way", KERNELS)
def test_rows_without_a_bundle_and_rows_beyond_the_step_keep_every_bit(way: str) -> None:
    held = Held({1: random_layer(5, "gelu", 2), 2: random_layer(5, "gelu", 3)})
    output = torch.randn(6, WIDTH)
    found = run(held, output, [2, -1, 1], way)  # six rows of output: three are padding
    assert torch.equal(found[1], output[1])
    assert torch.equal(found[3:], output[3:])


@pytest.mark.parametrize("way", WAYS)
def test_a_slot_holds_nothing_of_its_former_bundle(way: str) -> None:
    held = Held({0: random_layer(8, "relu", 1), 1: random_layer(8, "relu", 5)})
    held.put(0, random_layer(2, "silu", 2, bias=False))
    output = torch.randn(4, WIDTH)
    expected = random_layer(2, "silu", 2, bias=False).apply(output[:2])
    torch.testing.assert_close(
        run(held, output, [0, 0, 1, 1], way)[:2], expected, rtol=0, atol=TOLERANCE[torch.float32]
    )
    assert not held.slots.down[0, 2:].any()
    assert not held.slots.up[0, 2:].any()
    assert not held.slots.bias[0].any()
    held.slots.clear(0)
    held.table.free(0)
    assert torch.equal(run(held, output, [0, 0, 0, 0], way), output)


def test_refuses_a_rank_or_width_that_does_not_fit() -> None:
    held = Held({})
    with pytest.raises(CapacityError, match="rank: expected at most 8, found 9"):
        held.slots.put(0, random_layer(9, "relu", 0))
    with pytest.raises(CapacityError, match="rank: expected at most 8, found 9"):
        held.table.take(0, 9, "relu")
    with pytest.raises(BundleMismatchError, match="width: expected 24, found 3"):
        held.slots.put(0, LayerWeights(torch.zeros(1, 3), torch.zeros(3, 1), None))


def test_slots_of_equal_rank_activation_and_rows_are_one_group() -> None:
    table = SlotTable(6, MAX_RANK, CPU)
    for slot, (rank, activation) in enumerate([(4, "relu"), (4, "relu"), (8, "relu"), (4, "relu"), (4, "silu")]):
        table.take(slot, rank, activation)
    found = group_rows(np.array([3, 3, -1, 0, 1, 0, 1, 2, 2, 4, 4, 5]), table, CPU)
    groups = {(group.rank, group.activation): group for group in found}
    assert set(groups) == {(4, "relu"), (8, "relu"), (4, "silu")}  # slot 5 is empty
    four = groups[4, "relu"]
    assert (four.count, four.each, four.neighbours) == (3, 2, False)
    assert torch.equal(four.slots, torch.tensor([0, 1, 3]))
    assert torch.equal(four.rows, torch.tensor([3, 5, 4, 6, 0, 1]))
    assert [slot for slot, _ in four.parts()] == [0, 1, 3]
    assert four.parts()[2][1] == slice(0, 2)  # neighbours in the batch are a view
    assert groups[8, "relu"].slots == slice(2, 3)
    assert group_rows(np.array([-1, -1]), table, CPU) == []


@given(
    rows=st.lists(st.integers(-1, SLOTS - 1), max_size=40), ranks=st.lists(st.integers(0, 3), min_size=4, max_size=4)
)
def test_every_row_with_a_layer_is_in_one_group(rows: list[int], ranks: list[int]) -> None:
    table = SlotTable(SLOTS, MAX_RANK, CPU)
    for slot, rank in enumerate(ranks):
        table.take(slot, rank, "relu")
    numbers = torch.arange(len(rows))
    found = sorted(
        (int(row), slot)
        for group in group_rows(np.array(rows, dtype=np.int64), table, CPU)
        for slot, places in group.parts()
        for row in numbers[places]
    )
    assert found == [(row, slot) for row, slot in enumerate(rows) if slot >= 0 and ranks[slot]]


def test_a_cpu_slot_takes_memory_as_its_bundle_fills_it() -> None:
    """1,000 slots of rank 512 are 2.4 GB here; reserved they cost next to nothing."""
    import psutil

    process = psutil.Process()
    before = process.memory_info().rss
    slots = Slots(1000, 512, 576, torch.float32, CPU)
    slots.put(7, LayerWeights(torch.ones(16, 576), torch.ones(576, 16), None))
    assert process.memory_info().rss - before < 64 * 2**20
    assert not slots.down[8].any()


def test_a_shape_between_takes_the_nearest_by_factor() -> None:
    kinds = {(2, 1, 8): "apart", (2, 1, 64): "batched", (32, 1, 8): "stacked", (32, 1, 64): "apart"}
    table = KernelTable({Shape(*key, True): name for key, name in kinds.items()})

    def chosen(slots: int, rank: int) -> object:
        return table.choose(Group(slice(0, slots), slice(0, slots), 1, rank, "relu"))

    assert chosen(1, 8) is KERNELS["apart"]  # one slot alone is never a batch
    assert chosen(3, 8) is KERNELS["apart"]
    assert chosen(9, 8) is KERNELS["stacked"]  # 9 is nearer to 32 than to 2: 9 x 9 > 2 x 32
    assert chosen(7, 30) is KERNELS["batched"]
    assert chosen(500, 512) is KERNELS["apart"]
    scattered = Group(torch.tensor([0, 2]), slice(0, 2), 1, 8, "relu")
    assert table.choose(scattered) is KERNELS["batched"]  # not measured: the usual one
