"""What every block must know of the bundles in the slots: rank and activation, the same for all blocks."""

from __future__ import annotations

import torch

from eul_serve.errors import CapacityError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS

CODES = {name: code for code, name in enumerate(ACTIVATION_FUNCTIONS)}
"""Numbers of the activations, for kernels that choose by row."""


class SlotTable:
    """Rank and activation of the bundle in every slot."""

    def __init__(self, slots: int, max_rank: int, device: torch.device) -> None:
        """Start with empty slots.

        Args:
            slots: Bundles that can be in one batch.
            max_rank: Highest rank of a bundle.
            device: Where kernels that read ranks and activations themselves run.
        """
        self.max_rank = max_rank
        self.ranks = [0] * slots
        """Rank by slot; 0 is an empty slot, or an adapter that has no unlearning layers."""
        self.activations = ["relu"] * slots
        self.device_ranks = torch.zeros(slots, dtype=torch.int32, device=device)
        """The ranks where kernels read them, (slots)."""
        self.device_codes = torch.zeros(slots, dtype=torch.int32, device=device)
        """The activations' numbers where kernels read them, (slots)."""

    def __len__(self) -> int:
        return len(self.ranks)

    def take(self, slot: int, rank: int, activation: str) -> None:
        """Note the bundle that is now in a slot.

        Args:
            slot: Number of the slot.
            rank: Rank of the bundle.
            activation: Name of its activation.

        Raises:
            CapacityError: The rank is higher than the slots allow.
        """
        check_rank(rank, self.max_rank)
        self.ranks[slot], self.activations[slot] = rank, activation
        self.device_ranks[slot], self.device_codes[slot] = rank, CODES[activation]

    def free(self, slot: int) -> None:
        """Note that no bundle is in a slot; its rows get the base model's output."""
        self.take(slot, 0, "relu")


def check_rank(rank: int, highest: int) -> None:
    """Refuse a rank that does not fit.

    Args:
        rank: Rank of a bundle.
        highest: Highest rank that the slots hold.

    Raises:
        CapacityError: The rank is higher.
    """
    if rank > highest:
        raise CapacityError(f"rank: expected at most {highest}, found {rank}; raise the engine's maximum rank")
