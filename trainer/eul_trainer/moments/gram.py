"""A second moment as it is stored: halves of its diagonal blocks, or a few of its eigenvectors and a diagonal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedGram:
    """A symmetric matrix with nothing outside of its diagonal blocks: the blocks' upper halves, row by row."""

    size: int
    """Rows and columns, n."""
    width: int
    """Rows and columns of a block; the last one may be smaller."""
    values: torch.Tensor  # (packed_length(size, width),) float32

    @classmethod
    def of(cls, gram: torch.Tensor, width: int | None = None) -> PackedGram:
        """Pack a symmetric matrix.

        Args:
            gram: The matrix, (n, n); what is outside of its diagonal blocks is dropped.
            width: Rows of a block; None packs the matrix whole.

        Returns:
            The packed form.
        """
        size = len(gram)
        width = min(width or size, size)
        halves = [
            gram[first : first + width, first : first + width][_upper(min(width, size - first))]
            for first in range(0, size, width)
        ]
        return cls(size=size, width=width, values=torch.cat(halves).contiguous())

    def dense(self) -> torch.Tensor:
        """Return the matrix, (n, n)."""
        return block_diagonal_of(list(self.blocks()))

    def blocks(self) -> Iterator[torch.Tensor]:
        """Give the diagonal blocks one by one, from the first on."""
        start = 0
        for first in range(0, self.size, self.width):
            rows = min(self.width, self.size - first)
            block = self.values.new_zeros(rows, rows)
            half = rows * (rows + 1) // 2
            block[_upper(rows)] = self.values[start : start + half]
            yield block + block.triu(1).T
            start += half

    def parts(self) -> dict[str, torch.Tensor]:
        """Return the tensors to store, by the end of their names."""
        return {"": self.values}


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankGram:
    """The eigenvectors of the largest eigenvalues, and what they leave of the diagonal."""

    vectors: torch.Tensor  # (k, n) eigenvectors, one a row
    values: torch.Tensor  # (k,) their eigenvalues
    remainder: torch.Tensor  # (n,) the diagonal less theirs; never negative

    @classmethod
    def of(cls, gram: torch.Tensor, rank: int) -> LowRankGram:
        """Keep the eigenvectors of a positive matrix that hold most of it.

        Args:
            gram: The matrix, (n, n).
            rank: How many to keep; at most n are there.

        Returns:
            The low-rank form, whose diagonal is the matrix's own.
        """
        values, vectors = torch.linalg.eigh(gram.double())
        top, rows = values[-rank:].clamp_min(0), vectors[:, -rank:].T
        left = (gram.double().diagonal() - (rows.square() * top[:, None]).sum(0)).clamp_min(0)
        return cls(vectors=rows.float().contiguous(), values=top.float(), remainder=left.float())

    @property
    def size(self) -> int:
        """Rows and columns, n."""
        return len(self.remainder)

    def dense(self) -> torch.Tensor:
        """Return the matrix that the parts stand for, (n, n)."""
        return (self.vectors.T * self.values) @ self.vectors + torch.diag(self.remainder)

    def parts(self) -> dict[str, torch.Tensor]:
        """Return the tensors to store, by the end of their names."""
        return {".vectors": self.vectors, ".values": self.values, ".remainder": self.remainder}

    def error(self, gram: torch.Tensor) -> float:
        """Return the relative error of this form of a matrix, in the Frobenius norm."""
        return float((self.dense() - gram).norm() / gram.norm().clamp_min(1e-30))


Gram = PackedGram | LowRankGram


def block_diagonal_of(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return one square matrix with the given ones along its diagonal."""
    joined: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]  # torch has no type for it
    return joined


def packed_length(size: int, width: int) -> int:
    """Return how many numbers a packed matrix has."""
    whole, rest = divmod(size, width)
    return whole * (width * (width + 1) // 2) + rest * (rest + 1) // 2


def _upper(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = torch.triu_indices(size, size)
    return rows, columns
