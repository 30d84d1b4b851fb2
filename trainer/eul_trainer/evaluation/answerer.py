"""Who answers as a system: an interface, so that the same rows are asked of a model here or of a running server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from eul_trainer.records import Row

SERVER, TRANSFORMERS = "server", "transformers"
"""Where answers come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Answers drawn by chance."""

    count: int
    """Answers of each row."""
    tokens: int
    """Most tokens of an answer."""
    temperature: float = 1.0
    """What they are drawn at, above 0."""
    seed: int = 0
    """Seed."""


class Answerer(Protocol):
    """Answers prompts as one system. Neither method reads a row's completion."""

    @property
    def where(self) -> str:
        """SERVER or TRANSFORMERS."""
        ...

    @property
    def identity(self) -> str:
        """What tells its answers from all others in a cache, those of the same system elsewhere included."""
        ...

    def greedy(self, rows: Sequence[Row], tokens: int) -> Iterator[tuple[Sequence[int], Sequence[str]]]:
        """Answer rows greedily, in any order.

        Args:
            rows: The rows.
            tokens: Most tokens of an answer.

        Returns:
            Indices of rows and their answers, as they come.
        """
        ...

    def drawn(self, rows: Sequence[Row], seeds: Sequence[int], draws: Draws) -> Iterator[tuple[int, list[str]]]:
        """Draw several answers to each row, in any order of rows.

        Args:
            rows: The rows.
            seeds: A seed of each row.
            draws: How many, and how.

        Returns:
            A row's index and its answers, in the order of the draws.
        """
        ...
