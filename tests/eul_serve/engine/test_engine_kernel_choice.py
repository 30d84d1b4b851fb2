"""The kernels are measured at start: which shapes, and that the measurement decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eul_serve.engine.kernels import measure
from eul_serve.engine.kernels.measure import Bounds, grid, measure_kernels, measure_shape
from eul_serve.engine.kernels.table import KERNELS, Shape, usual

BOUNDS = Bounds(slots=8, max_rank=16, max_tokens=128, width=32, dtype=torch.float32)


def test_the_grid_stays_within_what_a_batch_can_be() -> None:
    shapes = grid(BOUNDS)
    assert {shape.count for shape in shapes} == {2, 8}
    assert {shape.rank for shape in shapes} == {8}
    assert max(shape.count * shape.each for shape in shapes) == 128
    wide = Bounds(slots=128, max_rank=512, max_tokens=8192, width=4096, dtype=torch.float32)
    assert all(shape.count * shape.each * shape.rank * 4096 <= measure.MOST_PRODUCTS for shape in grid(wide))
    assert grid(Bounds(slots=1, max_rank=16, max_tokens=128, width=32, dtype=torch.float32)) == []


def test_every_kernel_is_measured_where_it_can_be_worth_it() -> None:
    found = measure_shape(Shape(2, 4, 8, True), BOUNDS, repeats=2)
    assert set(found) == set(KERNELS)
    assert all(seconds > 0 for seconds in found.values())
    assert set(measure_shape(Shape(2, 4, 8, False), BOUNDS, repeats=1)) == {"apart", "batched"}


@pytest.mark.parametrize(("part", "wins"), [(0.5, True), (0.9, False)])
def test_only_a_clearly_faster_kernel_replaces_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, part: float, wins: bool
) -> None:
    def seconds(shape: Shape, bounds: Bounds) -> dict[str, float]:
        return {name: 1.0 if name == usual(shape) else part for name in ("apart", "batched")}

    monkeypatch.setattr(measure, "measure_shape", seconds)
    table = measure_kernels(BOUNDS)
    assert set(table.fastest) == set(grid(BOUNDS))
    assert all((name != usual(shape)) == wins for shape, name in table.fastest.items())


@pytest.mark.engine
@pytest.mark.asyncio(loop_scope="session")
async def test_a_worker_says_which_kernels_it_chose(engine: Any) -> None:
    (report,) = await engine._llm.live.collective_rpc("eul_report")
    assert report["kernels"]
    assert set(report["kernels"].values()) <= set(KERNELS)
    assert all(shape.startswith("2 ") for shape in report["kernels"])  # this engine has two slots
