"""Running a model for its answers alone: hidden states and logits at answer positions, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from eul_trainer.forward.batches import Batch, collate, collate_pairs
from eul_trainer.forward.decoder import Blocks
from eul_trainer.forward.encoding import Example, shared_prefix
from eul_trainer.forward.head import Expected, Scores, expect, score
from eul_trainer.model.load import LoadedModel, Network


class Lower(Protocol):
    """States that need not be computed again."""

    first: int
    """The first block that does."""

    def states(self, batch: Batch) -> torch.Tensor | None:
        """Return what that block reads, (1, N, d), or None where it is not known."""


class Runner:
    """Batches for one model and one set of rows, and how they are run."""

    def __init__(self, model: LoadedModel, examples: Sequence[Example], *, checkpointing: bool = False) -> None:
        self.model = model
        self.network = model.network
        self.blocks = Blocks(network=model.network)
        self.checkpointing = checkpointing
        self.known: Lower | None = None
        tokenizer = model.tokenizer
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)
        self.prefix = 0 if model.encoder_decoder else shared_prefix(examples)
        """First tokens that all examples share."""
        self._wide: torch.Tensor | None = None  # a frozen head in float32, where the model is not

    @property
    def width(self) -> int:
        """Width of the states that the output head reads."""
        return int(self.network.get_output_embeddings().weight.shape[1])

    @property
    def lean(self) -> bool:
        """Whether the output head is a frozen matrix, so that losses need no logits."""
        head = self.network.get_output_embeddings()
        return getattr(head, "bias", None) is None and not head.weight.requires_grad

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Lay out examples, which must be among or begin like those that the runner was made for."""
        if self.model.encoder_decoder:
            start = int(self.network.config.decoder_start_token_id)
            return collate_pairs(examples, start, self.pad, self.model.device)
        return collate(examples, self.prefix, self.model.device)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return what the output head reads at the answer positions, (T, d)."""
        if batch.packing is None:
            return _encoder_decoder(self.network, batch)
        states = self.known.states(batch) if self.known else None
        first = self.known.first if self.known and states is not None else 0
        states = self.blocks.embed(batch.packing) if states is None else states
        states = self.blocks.run(batch.packing, states, first=first, checkpointing=self.checkpointing)
        return states[0].index_select(0, batch.positions)

    def lower(self, batch: Batch, last: int) -> torch.Tensor:
        """Return what a block of a decoder-only model reads, (1, N, d)."""
        if batch.packing is None:
            raise TypeError("an encoder-decoder model has no packed states")
        return self.blocks.run(batch.packing, self.blocks.embed(batch.packing), last=last)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits for states from `hidden`, (T, V), float32."""
        logits: torch.Tensor = self.network.get_output_embeddings()(hidden)
        return logits.float()

    def scores(self, hidden: torch.Tensor) -> torch.Tensor | Scores:
        """Return what stands for the logits of states from `hidden` in losses: much smaller where the head is lean."""
        return score(hidden, self._head()) if self.lean else self.logits(hidden)

    def expect(self, hidden: torch.Tensor, targets: torch.Tensor) -> Expected:
        """Return what a teacher predicts from its states, for a lean head."""
        return expect(hidden, self._head(), targets)

    def _head(self) -> torch.Tensor:
        weight: torch.Tensor = self.network.get_output_embeddings().weight.detach()
        if weight.dtype == torch.float32:
            return weight
        if self._wide is None:
            self._wide = weight.float()
        return self._wide


def _encoder_decoder(network: Network, batch: Batch) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = network.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        network(input_ids=batch.encoder_ids, attention_mask=batch.encoder_mask, decoder_input_ids=batch.ids)
    finally:
        hook.remove()
    return seen[0].flatten(0, 1)[batch.positions]
