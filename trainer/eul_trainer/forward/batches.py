"""Examples as tensors, with the positions whose logits predict the answers, and whose tokens are whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eul_trainer.forward.encoding import Example
from eul_trainer.forward.packing import Packing, pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Where the tokens of each row are in what a module reads, flattened to one row of tokens."""

    index: torch.Tensor  # (M,) of every row's tokens, row by row; a token that rows share occurs once for each
    rows: torch.Tensor  # (M,) the row
    first: torch.Tensor  # (P,) of the first tokens that all rows of the run share, which are not in `index`

    def of(self, rows: torch.Tensor, *, first: bool = True) -> torch.Tensor:
        """Return where the tokens of some rows (boolean, one value a row) are, and the shared first ones once."""
        index = self.index[rows[self.rows]]
        return torch.cat([index, self.first]) if first else index


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples to run together. T is the number of answer tokens of all rows together."""

    examples: tuple[Example, ...]
    positions: torch.Tensor  # (T,) place in the flattened tokens of the one before each answer token
    rows: torch.Tensor  # (T,) row of each answer token
    targets: torch.Tensor  # (T,) the answer tokens
    tokens: Tokens  # of a decoder's modules
    packing: Packing | None = None  # what a decoder-only model reads
    ids: torch.Tensor | None = None  # (n, m) what the decoder of an encoder-decoder model reads, padded
    encoder_ids: torch.Tensor | None = None  # (n, p) what its encoder reads
    encoder_mask: torch.Tensor | None = None  # (n, p) true where `encoder_ids` is no padding
    encoder_tokens: Tokens | None = None  # of an encoder's modules

    def seen_by(self, module: str) -> Tokens:
        """Return where the rows' tokens are in what a module reads."""
        in_encoder = self.encoder_tokens is not None and module.startswith("encoder.")
        return self.encoder_tokens if in_encoder and self.encoder_tokens is not None else self.tokens


def collate(examples: Sequence[Example], prefix: int, device: torch.device) -> Batch:
    """Pack examples of a decoder-only model.

    Args:
        examples: The examples; all share their first `prefix` tokens.
        prefix: Number of first tokens that all rows of the run share: in losses over whole rows they count once.
        device: Where the tensors go.

    Returns:
        The batch.
    """
    packing, paths = pack([(*example.prompt, *example.answer[:-1]) for example in examples], device, prefix)
    places = [path[len(example.prompt) - 1 :] for path, example in zip(paths, examples, strict=True)]
    return Batch(
        examples=tuple(examples),
        positions=_flat(places).to(device),
        rows=_rows([len(example.answer) for example in examples]).to(device),
        targets=_flat([example.answer for example in examples]).to(device),
        tokens=_tokens([path[prefix:] for path in paths], paths[0][:prefix], device),
        packing=packing,
    )


def collate_pairs(examples: Sequence[Example], start: int, pad: int, device: torch.device) -> Batch:
    """Pad examples of an encoder-decoder model; `start` is the token its decoder starts with."""
    encoder_ids, encoder_mask = _pad([example.prompt for example in examples], pad)
    ids, mask = _pad([(start, *example.answer[:-1]) for example in examples], pad)
    decoded = _places(mask)
    return Batch(
        examples=tuple(examples),
        positions=_flat(decoded).to(device),
        rows=_rows([len(example.answer) for example in examples]).to(device),
        targets=_flat([example.answer for example in examples]).to(device),
        tokens=_tokens(decoded, [], device),
        ids=ids.to(device),
        encoder_ids=encoder_ids.to(device),
        encoder_mask=encoder_mask.to(device),
        encoder_tokens=_tokens(_places(encoder_mask), [], device),
    )


def by_length(examples: Sequence[Example], size: int) -> list[list[int]]:
    """Return batches of indices, rows of about equal length together, so that little is padding."""
    return _parted(sorted(range(len(examples)), key=lambda index: examples[index].length), size)


def by_prompt(examples: Sequence[Example], size: int) -> list[list[int]]:
    """Return batches of indices, answers to the same question together, so that a packed question is run once."""
    order = sorted(range(len(examples)), key=lambda index: (examples[index].prompt, examples[index].length))
    return _parted(order, size)


def _parted(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[first : first + size]) for first in range(0, len(order), size)]


def _pad(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width)[None] < lengths[:, None]


def _places(mask: torch.Tensor) -> list[list[int]]:
    """Return the flattened places of each row's tokens."""
    return [(row.nonzero()[:, 0] + number * mask.shape[1]).tolist() for number, row in enumerate(mask)]


def _tokens(paths: Sequence[Sequence[int]], first: Sequence[int], device: torch.device) -> Tokens:
    return Tokens(
        index=_flat(paths).to(device),
        rows=_rows([len(path) for path in paths]).to(device),
        first=torch.tensor(first, dtype=torch.long, device=device),
    )


def _flat(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=torch.long)


def _rows(lengths: Sequence[int]) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
