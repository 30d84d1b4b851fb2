"""Attention over packed rows, registered with transformers under a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from eul_trainer.forward.decoding import Decoding, KeysValues
from eul_trainer.forward.packing import Packing

if TYPE_CHECKING:
    from eul_trainer.model.load import Network

NAME = "eul_packed"
FEW_SCORES = 4 * 2**20
"""Scores of a block, over all heads, up to which whole matrices are made: beyond it they take too much memory."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing | Decoding,
    kept: list[KeysValues] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend segment by segment, as transformers' attention functions do for rows.

    Args:
        module: The attention module, for its number.
        query: Queries of the packed tokens, (1, heads, N, head width), rotated.
        key: Keys, (1, key heads, N, head width).
        value: Values, like the keys.
        attention_mask: None; the packing says who sees whom.
        packing: The packing; or rows that grow, which have their own way.
        kept: Given the keys and values, one pair a block; nothing if None.
        scaling: Factor on the scores.
        sliding_window: Tokens that a query sees, counted from itself; None for all.

    Returns:
        The attended values, (1, N, heads, head width), and no weights.
    """
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if isinstance(packing, Decoding):
        return packing.attend(module, query, key, value, sliding_window), None
    if kept is not None:
        kept.append((key, value))
    queries = _gather(query, packing.queries)
    keys, values = _gather(key, packing.keys), _gather(value, packing.keys)
    few = packing.sight.numel() * query.shape[1] <= FEW_SCORES
    attend = _matrices if few else _fused
    found = attend(queries, keys, values, _sight(packing, sliding_window)[:, None])
    flat = found.transpose(1, 2).flatten(0, 1)
    return flat.index_select(0, packing.back)[None], None


def _sight(packing: Packing, window: int | None) -> torch.Tensor:
    if window is None:
        return packing.sight
    gap = packing.places[packing.queries][:, :, None] - packing.places[packing.keys][:, None, :]
    return packing.sight & (gap < window)


def _matrices(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sight: torch.Tensor) -> torch.Tensor:
    """Attend with whole score matrices, heads that share a key together: for short rows twice as fast as fused."""
    segments, heads, width, size = queries.shape
    groups = heads // keys.shape[1]
    stacked = queries.reshape(segments, keys.shape[1], groups * width, size)
    scores = (stacked @ keys.transpose(-1, -2)).view(segments, keys.shape[1], groups, width, keys.shape[2])
    scores = scores.masked_fill_(~sight[:, :, None], -torch.inf)  # no copy of the largest tensor there is
    weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype).flatten(2, 3)
    return (weights @ values).view(segments, heads, width, size)


def _fused(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sight: torch.Tensor) -> torch.Tensor:
    groups = queries.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=sight, scale=1.0)


def _gather(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the states of segments, (S, heads, width, head width), from (1, heads, N, head width)."""
    rows = states[0].transpose(0, 1).index_select(0, index.flatten())
    return rows.view(*index.shape, *rows.shape[1:]).transpose(1, 2)


@contextmanager
def packed(network: Network) -> Iterator[None]:
    """Have a transformers model attend over packed rows while the context lasts."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    config = network.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
