"""Examples as padded tensors, with the positions whose logits predict the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eul_trainer.encoding import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Padded examples. T is the number of answer tokens of all rows together."""

    prefix: torch.Tensor  # (P,) first tokens that all prompts share, left out of `ids`; may be empty
    ids: torch.Tensor  # (n, m) what the decoder reads
    mask: torch.Tensor  # (n, m) true where `ids` is no padding
    positions: torch.Tensor  # (T,) index into the flattened `ids` of the token before each answer token
    rows: torch.Tensor  # (T,) row of each answer token
    targets: torch.Tensor  # (T,) the answer tokens
    encoder_ids: torch.Tensor | None = None  # (n, p) what an encoder reads
    encoder_mask: torch.Tensor | None = None  # (n, p)

    def mask_of(self, module: str, length: int) -> torch.Tensor:
        """Return the mask of the tokens that a module saw, (n, length), true where they are no padding."""
        if self.encoder_mask is not None and module.startswith("encoder."):
            return self.encoder_mask
        if length == len(self.prefix) and length != self.ids.shape[1]:
            return torch.ones(1, length, dtype=torch.bool, device=self.ids.device)
        return self.mask


def collate(examples: Sequence[Example], prefix: int, pad: int, device: torch.device) -> Batch:
    """Pad examples of a decoder-only model.

    Args:
        examples: The examples; all share their first `prefix` tokens.
        prefix: Number of shared tokens that are run once for the batch.
        pad: Token id to pad with.
        device: Where the tensors go.

    Returns:
        The batch.
    """
    inputs = [(*example.prompt[prefix:], *example.answer[:-1]) for example in examples]
    ids, mask = _pad(inputs, pad)
    width = ids.shape[1]
    starts = [row * width + len(example.prompt) - prefix - 1 for row, example in enumerate(examples)]
    return Batch(
        prefix=torch.tensor(examples[0].prompt[:prefix], dtype=torch.long, device=device),
        ids=ids.to(device),
        mask=mask.to(device),
        positions=_positions(starts, examples).to(device),
        rows=_rows(examples).to(device),
        targets=_targets(examples).to(device),
    )


def collate_pairs(examples: Sequence[Example], start: int, pad: int, device: torch.device) -> Batch:
    """Pad examples of an encoder-decoder model; `start` is the token its decoder starts with."""
    encoder_ids, encoder_mask = _pad([example.prompt for example in examples], pad)
    ids, mask = _pad([(start, *example.answer[:-1]) for example in examples], pad)
    starts = [row * ids.shape[1] for row in range(len(examples))]
    return Batch(
        prefix=torch.empty(0, dtype=torch.long, device=device),
        ids=ids.to(device),
        mask=mask.to(device),
        positions=_positions(starts, examples).to(device),
        rows=_rows(examples).to(device),
        targets=_targets(examples).to(device),
        encoder_ids=encoder_ids.to(device),
        encoder_mask=encoder_mask.to(device),
    )


def by_length(examples: Sequence[Example], size: int) -> list[list[int]]:
    """Return batches of indices, rows of about equal length together, so that little is padding."""
    order = sorted(range(len(examples)), key=lambda index: examples[index].length)
    return [order[first : first + size] for first in range(0, len(order), size)]


def _pad(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width)[None] < lengths[:, None]


def _positions(starts: Sequence[int], examples: Sequence[Example]) -> torch.Tensor:
    spans = [range(start, start + len(example.answer)) for start, example in zip(starts, examples, strict=True)]
    return torch.tensor([position for span in spans for position in span], dtype=torch.long)


def _rows(examples: Sequence[Example]) -> torch.Tensor:
    lengths = torch.tensor([len(example.answer) for example in examples])
    return torch.repeat_interleave(torch.arange(len(examples)), lengths)


def _targets(examples: Sequence[Example]) -> torch.Tensor:
    return torch.tensor([token for example in examples for token in example.answer], dtype=torch.long)
