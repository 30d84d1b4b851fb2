"""`y + U act(D y + b)` for a mixed batch in two launches: for large ranks, and for decoding, where tiles are few.

The first launch multiplies rows with D. A tile's work is cut over hidden units and over d, so that one tile of a few
rows keeps dozens of multiprocessors busy; each program writes its partial sums to a scratch in float32. The second
is cut over tiles and columns: it adds the partial sums up, makes the hidden units of them, and adds U's products.

The result is deterministic: no atomics, and partial sums are added in a fixed order. How a tile is cut depends on d,
the bundle's own rank, and whether the batch has more than `SPLIT_ROWS` rows, never on the other rows. So a row's bits
are the same alone and in any batch on the same side of that border.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from eul_serve.engine.kernels.tiles import Tiles
from eul_serve.engine.kernels.triton_fused import activate, rows_of_tile
from eul_serve.errors import CapacityError

SPLIT_ROWS = 512
"""Rows of a batch up to which d is split. Beyond, the tiles alone fill a device, and partial sums are traffic."""
_PARTS = 64
"""Programs that share a small batch's tile in the first launch: two tiles fill an A100 or H100, one fills half."""


@triton.jit
def _cut(
    rank: tl.tensor, parts: tl.tensor, STEPS: tl.constexpr, UNITS: tl.constexpr, SPLITS: tl.constexpr
) -> tl.tensor:
    """Return the chunks of a bundle's units, the pieces of d, and the steps over d in each piece."""
    chunks = (rank + UNITS - 1) // UNITS
    splits = tl.minimum(parts // chunks, SPLITS)
    each = (STEPS + splits - 1) // splits
    return chunks, (STEPS + each - 1) // each, each


@triton.jit(do_not_specialize=["rows", "parts"])
def _shrink(
    output: tl.tensor, down: tl.tensor, ranks: tl.tensor, scratch: tl.tensor,
    order: tl.tensor, tile_slot: tl.tensor, tile_start: tl.tensor, tile_count: tl.tensor,
    rows: tl.tensor, stride: tl.tensor, parts: tl.tensor,
    WIDTH: tl.constexpr, HIGHEST: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, STEP: tl.constexpr,
    SPLITS: tl.constexpr,
) -> None:  # fmt: skip
    part, tile = tl.program_id(0), tl.program_id(1)
    slot = tl.load(tile_slot + tile).to(tl.int64)
    if slot < 0:
        return
    rank = tl.load(ranks + slot).to(tl.int32)
    if rank == 0:
        return
    chunks, splits, each = _cut(rank, parts, (WIDTH + STEP - 1) // STEP, UNITS, SPLITS)
    split = part // chunks
    if split >= splits:
        return
    place, row, live = rows_of_tile(tile, order, tile_start, tile_count, rows, ROWS)
    line = output + row * stride
    unit = (part % chunks) * UNITS + tl.arange(0, UNITS)
    weight = down + slot * HIGHEST * WIDTH + unit * WIDTH
    own = unit < rank
    total = tl.zeros((ROWS, UNITS), dtype=tl.float32)
    for first in range(split * each * STEP, tl.minimum((split + 1) * each * STEP, WIDTH), STEP):
        column = first + tl.arange(0, STEP)
        inside = (column < WIDTH)[None, :]
        y = tl.load(line[:, None] + column[None, :], mask=live[:, None] & inside, other=0.0)
        d = tl.load(weight[:, None] + column[None, :], mask=own[:, None] & inside, other=0.0)
        total = tl.dot(y, tl.trans(d), total, input_precision="ieee")
    # A row's partial sums lie together: all units of the first piece of d, then those of the second.
    target = scratch + place[:, None] * (parts * UNITS) + (split * chunks * UNITS + unit)[None, :]
    tl.store(target, total, mask=live[:, None])


@triton.jit(do_not_specialize=["rows", "parts"])
def _expand(
    output: tl.tensor, bias: tl.tensor, up: tl.tensor, ranks: tl.tensor, codes: tl.tensor, scratch: tl.tensor,
    order: tl.tensor, tile_slot: tl.tensor, tile_start: tl.tensor, tile_count: tl.tensor,
    rows: tl.tensor, stride: tl.tensor, parts: tl.tensor,
    WIDTH: tl.constexpr, HIGHEST: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, STEP: tl.constexpr,
    SPLITS: tl.constexpr, TAKEN: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    block, tile = tl.program_id(0), tl.program_id(1)
    slot = tl.load(tile_slot + tile).to(tl.int64)
    if slot < 0:
        return
    rank = tl.load(ranks + slot).to(tl.int32)
    if rank == 0:
        return
    code = tl.load(codes + slot)
    chunks, splits, _ = _cut(rank, parts, (WIDTH + STEP - 1) // STEP, UNITS, SPLITS)
    piece = chunks * UNITS  # numbers that each piece of d has left for a row
    place, row, live = rows_of_tile(tile, order, tile_start, tile_count, rows, ROWS)
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    inside = (column < WIDTH)[None, :]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, rank, TAKEN):
        unit = first + tl.arange(0, TAKEN)
        own = unit < rank
        partial = scratch + place[:, None] * (parts * UNITS) + unit[None, :]
        known = live[:, None] & (unit < piece)[None, :]
        hidden = tl.load(partial, mask=known, other=0.0)
        # Unrolled, so that the loads of all pieces are on their way before the first is needed; in a branch, which
        # keeps the compiler from staging them in shared memory beside U's.
        if splits > 1:
            for split in tl.static_range(1, SPLITS):
                there = (split * piece + unit < splits * piece)[None, :]
                hidden += tl.load(partial + split * piece, mask=known & there, other=0.0)
        hidden += tl.load(bias + slot * HIGHEST + unit, mask=own, other=0.0).to(tl.float32)[None, :]
        hidden = tl.where(own[None, :], activate(hidden, code), 0.0).to(up.dtype.element_ty)
        weight = up + slot * HIGHEST * WIDTH + unit * WIDTH
        u = tl.load(weight[:, None] + column[None, :], mask=own[:, None] & inside, other=0.0)
        total = tl.dot(hidden, u, total, input_precision="ieee")
    target = output + (row * stride)[:, None] + column[None, :]
    y = tl.load(target, mask=live[:, None] & inside, other=0.0)
    tl.store(target, (y.to(tl.float32) + total).to(y.dtype), mask=live[:, None] & inside)


def _units(max_rank: int) -> int:
    """Return the hidden units of one program of the first launch.

    With 16, the least that a tensor core takes, y is read as often as D; with 32, half as often. More would leave
    fewer programs to share a tile.
    """
    return 16 if max_rank <= 16 else 32


def _parts(rows: int, max_rank: int) -> tuple[int, int]:
    """Return the programs that share a tile in the first launch, and the most pieces of d.

    The second launch has the partial sums of all pieces in registers at once: for 16 rows of 64 units, 64 a thread.
    """
    chunks = -(-max_rank // _units(max_rank))
    if rows > SPLIT_ROWS:
        return chunks, 1
    return max(_PARTS, chunks), 16 if max_rank <= 32 else 8


def make_scratch(max_tokens: int, max_rank: int, device: torch.device) -> torch.Tensor:
    """Reserve the memory for partial sums, once for all blocks of a model, which use it one after the other.

    Args:
        max_tokens: Most rows of a batch.
        max_rank: Highest rank of a bundle.
        device: Where the kernels run.

    Returns:
        float32, one dimension: 8 KB a row for up to `SPLIT_ROWS` rows, or 4 bytes a row and unit, whichever is more.
    """
    sizes = [rows * _parts(rows, max_rank)[0] for rows in (min(max_tokens, SPLIT_ROWS), max_tokens)]
    return torch.empty(max(sizes) * _units(max_rank), dtype=torch.float32, device=device)


def _blocks(rows: int, max_rank: int, element_size: int) -> dict[str, dict[str, int]]:
    """Return the block sizes of each launch for tiles of so many rows.

    A step over d is 256 bytes of each row of D, two cache lines, and loads are 16 bytes a thread; with four stages a
    program has 24 KB of D under way, and some programs share a multiprocessor. U's rows are 256 bytes as well, and 64
    of them are taken at a time: each turn of that loop waits for partial sums, so its turns should be few. In
    float32, which no tensor core multiplies, deep products are unrolled into more than the registers hold. Eight
    warps where four would not have the registers for the sums.
    """
    step, warps = 256 // element_size, 4 if rows < 64 else 8
    taken = min(64 if element_size == 2 else 16, max(16, triton.next_power_of_2(max_rank)))
    return {
        "shrink": {"STEP": step, "num_warps": warps, "num_stages": 4 if rows < 64 else 3},
        "expand": {"STEP": step, "TAKEN": taken, "COLUMNS": step, "num_warps": warps, "num_stages": 3},
    }


def add_layers(
    output: torch.Tensor,
    down: torch.Tensor,
    bias: torch.Tensor,
    up: torch.Tensor,
    ranks: torch.Tensor,
    codes: torch.Tensor,
    tiles: Tiles,
    scratch: torch.Tensor,
) -> None:
    """Add the layers to a batch in place.

    Args:
        output: Output y of the module, (rows, d), its columns next to each other; rows in no tile keep every bit.
        down: D of every slot, (slots, max_rank, d), in the dtype of `output`.
        bias: Biases b, (slots, max_rank).
        up: U transposed, (slots, max_rank, d).
        ranks: Each slot's own rank, (slots,), an integer dtype; units beyond it are not read.
        codes: Each slot's activation, its place in `ACTIVATION_FUNCTIONS`, (slots,), an integer dtype.
        tiles: The rows of every slot.
        scratch: What `make_scratch` returned, for at least the rows of `tiles` and this rank.

    Raises:
        CapacityError: The scratch is too small.
    """
    rows, (_, max_rank, width) = len(output), down.shape
    units, (parts, splits) = _units(max_rank), _parts(rows, max_rank)
    if len(scratch) < (needed := min(rows, tiles.max_tokens) * parts * units):
        raise CapacityError(f"scratch: expected at least {needed} numbers, found {len(scratch)}")
    step = (tiles.order, tiles.tile_slot, tiles.tile_start, tiles.tile_count, rows, output.stride(0), parts)
    sizes = {"WIDTH": width, "HIGHEST": max_rank, "ROWS": tiles.block_rows, "UNITS": units, "SPLITS": splits}
    blocks = _blocks(tiles.block_rows, max_rank, output.element_size())
    _shrink[(parts, tiles.max_tiles(rows))](output, down, ranks, scratch, *step, **sizes, **blocks["shrink"])
    grid = (triton.cdiv(width, blocks["expand"]["COLUMNS"]), tiles.max_tiles(rows))
    _expand[grid](output, bias, up, ranks, codes, scratch, *step, **sizes, **blocks["expand"])
