"""The rows of a batch, cut into tiles."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.engine.kernels.tiles import Tiles
from eul_serve.errors import EngineError

SLOTS, MAX_TOKENS = 5, 150
CPU = torch.device("cpu")

batches = st.lists(st.integers(-1, SLOTS - 1), max_size=MAX_TOKENS)


def read(tiles: Tiles) -> list[tuple[int, list[int]]]:
    """Return slot and rows of every tile with work, as a kernel reads them."""
    found = []
    for slot, start, count in zip(tiles.tile_slot, tiles.tile_start, tiles.tile_count, strict=True):
        if slot >= 0:
            found.append((int(slot), tiles.order[start : start + count].tolist()))
    return found


@given(batches=st.lists(batches, min_size=1, max_size=3), block_rows=st.sampled_from([16, 32, 64]))
def test_every_row_with_a_slot_is_in_one_tile_of_its_slot(batches: list[list[int]], block_rows: int) -> None:
    tiles = Tiles(SLOTS, MAX_TOKENS, block_rows, CPU)
    for batch in batches:  # the last one leaves nothing of those before
        tiles.fill(np.array(batch, dtype=np.int64))
        found = read(tiles)
        placed = [(row, slot) for slot, rows in found for row in rows]
        assert sorted(placed) == [(row, slot) for row, slot in enumerate(batch) if slot >= 0]
        assert all(1 <= len(rows) <= block_rows for _, rows in found)
        assert [slot for slot, _ in found] == sorted(slot for slot, _ in found)


@given(batch=batches, padding=st.integers(0, 20), block_rows=st.sampled_from([16, 32]))
def test_a_grid_for_the_rows_covers_all_tiles(batch: list[int], padding: int, block_rows: int) -> None:
    tiles = Tiles(SLOTS, MAX_TOKENS, block_rows, CPU)
    tiles.fill(np.array(batch, dtype=np.int64))
    covered = tiles.max_tiles(len(batch) + padding)
    assert covered <= len(tiles.tile_slot)
    assert (tiles.tile_slot[covered:] == -1).all()


def test_neighbours_in_the_batch_stay_neighbours() -> None:
    tiles = Tiles(SLOTS, MAX_TOKENS, 16, CPU)
    tiles.fill(np.array([3, -1, 0, 3, 3, -1, 0] + [2] * 20))
    assert read(tiles) == [(0, [2, 6]), (2, list(range(7, 23))), (2, list(range(23, 27))), (3, [0, 3, 4])]


def test_addresses_stay() -> None:
    tiles = Tiles(SLOTS, MAX_TOKENS, 16, CPU)
    views = (tiles.order, tiles.tile_slot, tiles.tile_start, tiles.tile_count)
    before = [view.data_ptr() for view in views]
    tiles.fill(np.array([0] * 40))
    assert [view.data_ptr() for view in views] == before
    assert {view.dtype for view in views} == {torch.int32}


def test_a_new_one_and_an_empty_batch_have_no_work() -> None:
    tiles = Tiles(SLOTS, MAX_TOKENS, 16, CPU)
    assert read(tiles) == []
    tiles.fill(np.zeros(40, dtype=np.int64))
    tiles.fill(np.zeros(0, dtype=np.int64))
    assert read(tiles) == []


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(EngineError, match="block_rows: expected a power of two from 16, found 24"):
        Tiles(SLOTS, MAX_TOKENS, 24, CPU)
    tiles = Tiles(SLOTS, MAX_TOKENS, 16, CPU)
    with pytest.raises(EngineError, match="rows: expected at most 150, found 151"):
        tiles.fill(np.zeros(151, dtype=np.int64))
    with pytest.raises(EngineError, match="slot: expected at most 4, found 5"):
        tiles.fill(np.array([0, 5, -1]))


def test_only_the_kernels_themselves_need_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("eul_serve.engine.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    import eul_serve.engine.kernels.tiles

    assert eul_serve.engine.kernels.tiles.Tiles is not Tiles  # imported anew
    with pytest.raises(ImportError):
        import eul_serve.engine.kernels.triton_fused
