"""Rows that grow by a token at a time: what the blocks of a decoder-only model have seen of them is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from eul_trainer.model.load import Network

KeysValues: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""What attention keeps of tokens, each (1, key heads, N, head width)."""


class Decoding:
    """Keys and values of rows, with room for what comes, and the token that each row reads next.

    Args:
        seen: Keys and values of the packed rows, one pair a block.
        paths: Packed index of each row's tokens.
        room: Most tokens that a row grows by.
    """

    def __init__(self, seen: Sequence[KeysValues], paths: Sequence[Sequence[int]], room: int) -> None:
        device = seen[0][0].device
        width = max(map(len, paths))
        index = torch.tensor([[*path, *[0] * (width - len(path))] for path in paths], device=device)
        self.lengths = torch.tensor([len(path) for path in paths], device=device)
        """Tokens of each row that were read, (n,)."""
        self.ids = torch.zeros_like(self.lengths)
        """The token that each row reads next, (n,)."""
        self._blocks = [(_laid_out(keys, index, room), _laid_out(values, index, room)) for keys, values in seen]
        self._reach = width

    @property
    def places(self) -> torch.Tensor:
        """Position of that token in its row, (n,)."""
        return self.lengths

    def read(self) -> None:
        """Count the tokens in `ids` as read, after all blocks have run."""
        self.lengths = self.lengths + 1
        self._reach += 1

    def keep(self, rows: torch.Tensor) -> None:
        """Let go of all rows but some, (m,): those that have come to their end need not be run."""
        self.lengths, self.ids = self.lengths[rows], self.ids[rows]
        self._blocks = [(keys[rows], values[rows]) for keys, values in self._blocks]

    def attend(
        self, module: Network, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> torch.Tensor:
        """Attend from each row's new token to the row.

        Args:
            module: The attention module, which knows the number of its block.
            query: Queries of the new tokens, (1, heads, n, head width), rotated and scaled.
            key: Keys, (1, key heads, n, head width).
            value: Values, like the keys.
            window: Tokens that a query sees, counted from itself; None for all.

        Returns:
            The attended values, (1, n, heads, head width).
        """
        keys, values = self._blocks[module.layer_idx]
        rows = torch.arange(len(self.lengths), device=key.device)
        keys[rows, :, self.lengths] = key[0].transpose(0, 1)
        values[rows, :, self.lengths] = value[0].transpose(0, 1)
        keys, values = keys[:, :, : self._reach + 1], values[:, :, : self._reach + 1]
        count, heads, _, size = len(rows), query.shape[1], query.shape[2], query.shape[3]
        grouped = query[0].transpose(0, 1).reshape(count, keys.shape[1], heads // keys.shape[1], size)
        scores = (grouped @ keys.transpose(-1, -2)).masked_fill(~self._sight(window)[:, None, None], -torch.inf)
        found: torch.Tensor = scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
        return found.reshape(1, count, heads, size)

    def _sight(self, window: int | None) -> torch.Tensor:
        """Return what each new token sees, (n, k)."""
        places = torch.arange(self._reach + 1, device=self.lengths.device)[None]
        sight = places <= self.lengths[:, None]
        return sight if window is None else sight & (self.lengths[:, None] - places < window)


def _laid_out(states: torch.Tensor, index: torch.Tensor, room: int) -> torch.Tensor:
    """Return packed states row by row, (n, key heads, width + room, head width)."""
    rows = states[0].transpose(0, 1)[index].transpose(1, 2)
    return torch.cat([rows, rows.new_zeros(*rows.shape[:2], room, rows.shape[3])], 2)
