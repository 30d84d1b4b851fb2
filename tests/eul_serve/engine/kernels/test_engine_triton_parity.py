"""Our Triton kernels against `LayerWeights.apply`, in Triton's interpreter.

Weights beyond a slot's own rank are NaN, and so is the scratch: whoever reads them shows it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from eul_serve.errors import CapacityError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS
from tests.eul_serve.engine.kernels.kernel_cases import TOLERANCE, Case, Held, interpret

KERNELS = ("fused", "split")
# Slot 1 is empty. Slot 0 has two tiles, and 200 columns are no multiple of any block: d is cut into pieces.
HELD = (Held(0, 16, "relu"), Held(2, 5, "gelu", bias=False), Held(3, 9, "silu"))
ROWS = (0, 3, 3, -1, 2, 0, 1, 1, -1) + (0,) * 17 + (2, 3)
MIXED = Case("mixed", "", HELD, ROWS, len(ROWS) + 3, width=200)
ALONE = (0, 4, 27)
SOME_RANKS = (1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64)


def ranks(kernel: str, some: tuple[int, ...]) -> Case:
    """One row for each rank; the activations take turns."""
    names = sorted(ACTIVATION_FUNCTIONS)
    held = tuple(Held(slot, rank, names[rank % 3], bias=rank % 2 == 0) for slot, rank in enumerate(some))
    rows = tuple(range(len(some)))
    return Case(f"{kernel}-ranks", kernel, held, rows, len(rows), max_rank=64, slots=len(some))


def cases_of(kernel: str) -> list[Case]:
    mixed = replace(MIXED, kernel=kernel)
    cases = [replace(mixed, name=f"{kernel}-{dtype}", dtype=dtype) for dtype in TOLERANCE]
    for row in ALONE:
        rows = tuple(slot if place == row else -1 for place, slot in enumerate(ROWS))
        cases.append(replace(mixed, name=f"{kernel}-alone-{row}", rows=rows))
    others = tuple(2 if slot == 0 and row not in ALONE else slot for row, slot in enumerate(ROWS))
    cases.append(replace(mixed, name=f"{kernel}-others", rows=others))
    huge = (Held(0, 16, scale=3e4), *HELD[1:])
    cases.append(replace(mixed, name=f"{kernel}-overflow", held=huge, dtype="float16"))
    cases.append(replace(mixed, name=f"{kernel}-short", output_rows=10))
    cases.append(replace(mixed, name=f"{kernel}-wide-tiles", block_rows=32))
    cases.append(ranks(kernel, tuple(range(1, 65)) if kernel == "fused" else SOME_RANKS))
    return cases


HIGH = Case(
    "split-480", "split", (Held(0, 480), Held(1, 33, "gelu"), Held(2, 64, "silu")), (0, 1, 1, -1, 2, 0), 6,
    max_rank=480, width=136, slots=3,
)  # fmt: skip
LONG = replace(MIXED, name="split-long", kernel="split", rows=ROWS * 19, output_rows=len(ROWS) * 19, width=72)
DEVICE = replace(MIXED, name="device", kernel="device")
NO_BUNDLE = replace(DEVICE, name="device-none", rows=(-1,) * len(ROWS))
CASES = {case.name: case for kernel in KERNELS for case in cases_of(kernel)} | {"split-480": HIGH, "split-long": LONG}
CASES |= {case.name: case for case in (DEVICE, NO_BUNDLE)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return interpret(CASES.values(), tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("overflow")])
def test_equals_the_reference(name: str, found: dict[str, torch.Tensor]) -> None:
    case = CASES[name]
    torch.testing.assert_close(found[name], case.expected(), rtol=0, atol=TOLERANCE[case.dtype])


@pytest.mark.parametrize("name", CASES)
def test_rows_without_a_layer_keep_every_bit(name: str, found: dict[str, torch.Tensor]) -> None:
    case = CASES[name]
    slots = {held.slot for held in case.held}
    changed = [row for row, slot in enumerate(case.rows[: case.output_rows]) if slot in slots]
    kept = sorted(set(range(case.output_rows)) - set(changed))  # no bundle, an empty slot, or padding
    assert torch.equal(found[name][kept], case.output()[kept])
    assert (found[name][changed] != case.output()[changed]).any(dim=1).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_overflow_in_one_bundle_does_not_reach_another_row(kernel: str, found: dict[str, torch.Tensor]) -> None:
    case = CASES[f"{kernel}-overflow"]
    others = [row for row, slot in enumerate(ROWS) if slot != 0]
    assert torch.isinf(found[case.name][0]).any()
    torch.testing.assert_close(
        found[case.name][others], case.expected()[others], rtol=0, atol=TOLERANCE[case.dtype]
    )  # fmt: skip


@pytest.mark.parametrize("row", ALONE)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(
    kernel: str, row: int, found: dict[str, torch.Tensor]
) -> None:  # fmt: skip
    alone = found[f"{kernel}-alone-{row}"][row]
    assert torch.equal(alone, found[f"{kernel}-float32"][row])
    assert torch.equal(alone, found[f"{kernel}-others"][row])


@pytest.mark.parametrize("kernel", KERNELS)
def test_refuses_what_does_not_fit(kernel: str) -> None:
    from eul_serve.engine.kernels import triton_fused, triton_split
    from eul_serve.engine.kernels.tiles import Tiles

    assert triton_fused.fits(128)
    assert not triton_fused.fits(129)
    tiles, number = Tiles(1, 32, 16, torch.device("cpu")), torch.zeros(1, dtype=torch.int64)
    weights: Any = (torch.zeros(1, 129, 8), torch.zeros(1, 129), torch.zeros(1, 129, 8), number, number)
    if kernel == "fused":
        with pytest.raises(CapacityError, match="rank: expected at most 128, found 129; use the kernel in two"):
            triton_fused.add_layers(torch.zeros(32, 8), *weights, tiles)
    else:
        with pytest.raises(CapacityError, match="scratch: expected at least 65536 numbers, found 10"):
            triton_split.add_layers(torch.zeros(32, 8), *weights, tiles, torch.zeros(10))
