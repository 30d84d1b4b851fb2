"""Rows of a batch as one sequence without padding, in which tokens that rows begin with alike occur once.

A causal model computes the same for a token whatever follows it. So rows are laid out as a tree: a chat template's
first tokens are the root, a question with two answers is one branch with two leaves. Everything but attention runs over
the tokens of the tree; attention runs segment by segment, a segment seeing its ancestors and its own earlier tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

MIN_SHARED = 6
"""Shared tokens below which rows are kept apart: each segment costs a row in the padded attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """N tokens in S segments, with the indices that attention needs. q and k are the widest segment and sight."""

    ids: torch.Tensor  # (N,) token ids
    places: torch.Tensor  # (N,) position of each token in its row
    queries: torch.Tensor  # (S, q) packed index of each segment's tokens, padded with 0
    keys: torch.Tensor  # (S, k) packed index of what each segment can see: its ancestors, then itself
    sight: torch.Tensor  # (S, q, k) true where a query may see a key
    back: torch.Tensor  # (N,) where each token lies in the flattened `queries`


@dataclass(slots=True)
class _Segment:
    ancestors: list[int]
    own: list[int]


def pack(rows: Sequence[Sequence[int]], device: torch.device, prefix: int = 0) -> tuple[Packing, list[list[int]]]:
    """Lay rows out as a tree.

    Args:
        rows: Token ids of each row, none of them empty.
        device: Where the tensors go.
        prefix: First tokens that all rows share, which are packed once however few they are.

    Returns:
        The packing, and the packed index of each row's tokens.
    """
    paths: list[list[int]] = [[] for _ in rows]
    ids: list[int] = []
    places: list[int] = []
    segments: list[_Segment] = []
    waiting = [(sorted(range(len(rows)), key=lambda row: tuple(rows[row])), 0)]
    while waiting:
        group, start = waiting.pop()
        found = [(group, prefix)] if start < prefix else _clusters(rows, group, start)
        for cluster, end in found:
            first = cluster[0]
            own = list(range(len(ids), len(ids) + end - start))
            segments.append(_Segment(list(paths[first]), own))
            ids += rows[first][start:end]
            places += range(start, end)
            for row in cluster:
                paths[row] += own
            longer = [row for row in cluster if len(rows[row]) > end]
            if longer:
                waiting.append((longer, end))
    return _tensors(ids, places, segments, device), paths


def _clusters(rows: Sequence[Sequence[int]], group: list[int], start: int) -> Iterator[tuple[list[int], int]]:
    """Split sorted rows that agree up to `start` into clusters, each with the end of what its rows share."""
    cluster, end = [group[0]], len(rows[group[0]])
    for row in group[1:]:
        shared = _shared(rows[cluster[-1]], rows[row], start)
        if shared - start >= MIN_SHARED or shared == len(rows[row]) == len(rows[cluster[-1]]):
            cluster.append(row)
            end = min(end, shared)
        else:
            yield cluster, end
            cluster, end = [row], len(rows[row])
    yield cluster, end


def _shared(first: Sequence[int], second: Sequence[int], start: int) -> int:
    shortest = min(len(first), len(second))
    while start < shortest and first[start] == second[start]:
        start += 1
    return start


def _tensors(ids: list[int], places: list[int], segments: Sequence[_Segment], device: torch.device) -> Packing:
    queries, keys = _padded([part.own for part in segments]), _padded([part.ancestors + part.own for part in segments])
    before = torch.tensor([len(part.ancestors) for part in segments])
    back = torch.empty(len(ids), dtype=torch.long)
    for number, part in enumerate(segments):
        back[part.own[0] : part.own[-1] + 1] = torch.arange(len(part.own)) + number * queries.shape[1]
    # A padded query sees padded keys too; nothing reads it. Every query sees at least the first key.
    reach = before[:, None, None] + torch.arange(queries.shape[1])[None, :, None]
    sight = torch.arange(keys.shape[1])[None, None] <= reach
    return Packing(
        ids=torch.tensor(ids, device=device),
        places=torch.tensor(places, device=device),
        queries=queries.to(device),
        keys=keys.to(device),
        sight=sight.to(device),
        back=back.to(device),
    )


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long)
