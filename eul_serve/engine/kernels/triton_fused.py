"""`y + U act(D y + b)` for a mixed batch in one launch, for ranks whose hidden units fit on the chip.

One program per tile. It multiplies the tile's rows with D, keeps the hidden units in registers, and then walks over
the columns again to add U's products, so y is read twice and written once, and nothing goes through memory in
between. That suits long prompts, whose tiles fill the device; with few tiles most of it would idle, and
`triton_split` is faster.

The result is deterministic and a row's depends on no other row: every sum runs over d, then over the units, in an
order that the shapes and the bundle's rank alone decide.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from eul_serve.engine.kernels.tiles import Tiles
from eul_serve.errors import CapacityError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS

_NAMES = list(ACTIVATION_FUNCTIONS)
_RELU, _GELU = tl.constexpr(_NAMES.index("relu")), tl.constexpr(_NAMES.index("gelu"))
_HALF_ROOT = tl.constexpr(0.5**0.5)

MAX_RANK = 128
"""Highest rank whose hidden units stay on the chip.

At 128, tiles of 64 rows take 57 KB of shared memory compiled for an A100 and 74 KB for an H100, so two programs or more
share a multiprocessor; at 256 it is 106 KB and 139 KB: one.
"""


def fits(max_rank: int) -> bool:
    """Return whether slots of this rank can be run in one launch."""
    return max_rank <= MAX_RANK


@triton.jit
def activate(hidden: tl.tensor, code: tl.tensor) -> tl.tensor:
    """Return act(hidden) in float32; `code` is the activation's place in ACTIVATION_FUNCTIONS."""
    if code == _RELU:
        hidden = tl.where(hidden < 0, 0.0, hidden)  # unlike a maximum, this keeps NaN
    elif code == _GELU:
        hidden = 0.5 * hidden * (1 + tl.math.erf(hidden * _HALF_ROOT))
    else:
        hidden = hidden / (1 + tl.exp(-hidden))  # silu
    return hidden


@triton.jit
def rows_of_tile(
    tile: tl.tensor, order: tl.tensor, tile_start: tl.tensor, tile_count: tl.tensor, rows: tl.tensor, ROWS: tl.constexpr
) -> tl.tensor:
    """Return places in `order`, rows of the batch as int64, and which of them are real; each (ROWS,)."""
    member = tl.arange(0, ROWS)
    live = member < tl.load(tile_count + tile)
    place = (tl.load(tile_start + tile) + member).to(tl.int64)
    row = tl.load(order + place, mask=live, other=0)
    # A batch smaller than the step's must not be written beyond its end.
    return place, row.to(tl.int64), live & (row < rows)


@triton.jit
def _add_tile(
    line: tl.tensor, live: tl.tensor, down: tl.tensor, bias: tl.tensor, up: tl.tensor, rank: tl.tensor, code: tl.tensor,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, STEP: tl.constexpr,
) -> None:  # fmt: skip
    unit = tl.arange(0, UNITS)
    own = unit < rank  # what lies beyond the bundle's rank is not loaded
    weight = unit[:, None] * WIDTH
    total = tl.zeros((ROWS, UNITS), dtype=tl.float32)
    for first in range(0, WIDTH, STEP):
        column = first + tl.arange(0, STEP)
        inside = (column < WIDTH)[None, :]
        y = tl.load(line[:, None] + column[None, :], mask=live[:, None] & inside, other=0.0)
        d = tl.load(down + weight + column[None, :], mask=own[:, None] & inside, other=0.0)
        total = tl.dot(y, tl.trans(d), total, input_precision="ieee")
    total += tl.load(bias + unit, mask=own, other=0.0).to(tl.float32)[None, :]
    hidden = tl.where(own[None, :], activate(total, code), 0.0).to(down.dtype.element_ty)
    # All hidden units are made from unchanged rows: no thread may write before every thread has read.
    tl.debug_barrier()
    for first in range(0, WIDTH, STEP):
        column = first + tl.arange(0, STEP)
        inside = (column < WIDTH)[None, :]
        u = tl.load(up + weight + column[None, :], mask=own[:, None] & inside, other=0.0)
        delta = tl.dot(hidden, u, input_precision="ieee")
        place = line[:, None] + column[None, :]
        y = tl.load(place, mask=live[:, None] & inside, other=0.0)
        tl.store(place, (y.to(tl.float32) + delta).to(y.dtype), mask=live[:, None] & inside)


@triton.jit(do_not_specialize=["rows"])
def _fused(
    output: tl.tensor, down: tl.tensor, bias: tl.tensor, up: tl.tensor, ranks: tl.tensor, codes: tl.tensor,
    order: tl.tensor, tile_slot: tl.tensor, tile_start: tl.tensor, tile_count: tl.tensor,
    rows: tl.tensor, stride: tl.tensor,
    WIDTH: tl.constexpr, HIGHEST: tl.constexpr, ROWS: tl.constexpr, LAST: tl.constexpr,
    STEP: tl.constexpr,
) -> None:  # fmt: skip
    tile = tl.program_id(0)
    slot = tl.load(tile_slot + tile).to(tl.int64)
    if slot < 0:
        return
    rank = tl.load(ranks + slot)
    code = tl.load(codes + slot)
    _, row, live = rows_of_tile(tile, order, tile_start, tile_count, rows, ROWS)
    line = output + row * stride
    first = slot * HIGHEST
    # The bundle's own rank, rounded up to a power of two, chooses how wide the products are: 16, 32, ... A rank of
    # zero chooses none. One wide product reads the rows once, where chunks of units would read them for each chunk.
    for power in tl.static_range(4, LAST + 1):
        if (rank <= (1 << power)) & (rank > ((1 << power) // 2) * (power > 4)):
            _add_tile(
                line, live, down + first * WIDTH, bias + first, up + first * WIDTH, rank, code,
                WIDTH, ROWS, 1 << power, STEP * (1 + (power < 6)),
            )  # fmt: skip


def _blocks(max_rank: int, element_size: int) -> dict[str, int]:
    """Return columns of one step, warps and stages.

    A step's row of D, y or U is 128 bytes, a whole cache line, which eight threads load with 16 bytes each; twice
    that for ranks up to 32, whose steps would be too small to keep the memory busy. With three stages two steps are
    under way while one is multiplied.
    """
    return {"STEP": 128 // element_size, "num_warps": 8 if max_rank > 64 else 4, "num_stages": 3}


def add_layers(
    output: torch.Tensor,
    down: torch.Tensor,
    bias: torch.Tensor,
    up: torch.Tensor,
    ranks: torch.Tensor,
    codes: torch.Tensor,
    tiles: Tiles,
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

    Raises:
        CapacityError: The highest rank does not fit on the chip, see `fits`.
    """
    _, max_rank, width = down.shape
    if not fits(max_rank):
        raise CapacityError(f"rank: expected at most {MAX_RANK}, found {max_rank}; use the kernel in two launches")
    _fused[(tiles.max_tiles(len(output)),)](
        output, down, bias, up, ranks, codes,
        tiles.order, tiles.tile_slot, tiles.tile_start, tiles.tile_count, len(output), output.stride(0),
        WIDTH=width, HIGHEST=max_rank, ROWS=tiles.block_rows, LAST=max(4, (max_rank - 1).bit_length()),
        **_blocks(max_rank, output.element_size()),
    )  # fmt: skip
