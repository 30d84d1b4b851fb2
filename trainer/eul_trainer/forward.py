"""Running a model for its answers alone: hidden states and logits at answer positions, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_trainer.batches import Batch, collate, collate_pairs
from eul_trainer.decoder import Blocks
from eul_trainer.encoding import Example, shared_prefix
from eul_trainer.model import LoadedModel, Network


class Runner:
    """Batches for one model and one set of rows, and how they are run."""

    def __init__(self, model: LoadedModel, examples: Sequence[Example], *, checkpointing: bool = False) -> None:
        self.model = model
        self.network = model.network
        self.blocks = Blocks(network=model.network)
        self.checkpointing = checkpointing
        tokenizer = model.tokenizer
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)
        self.prefix = 0 if model.encoder_decoder else shared_prefix(examples)
        """First tokens that all examples share."""

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
        states = self.blocks.embed(batch.packing)
        states = self.blocks.run(batch.packing, states, checkpointing=self.checkpointing)
        return states[0].index_select(0, batch.positions)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits for states from `hidden`, (T, V), float32."""
        logits: torch.Tensor = self.network.get_output_embeddings()(hidden)
        return logits.float()


def _encoder_decoder(network: Network, batch: Batch) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = network.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        network(input_ids=batch.encoder_ids, attention_mask=batch.encoder_mask, decoder_input_ids=batch.ids)
    finally:
        hook.remove()
    return seen[0].flatten(0, 1)[batch.positions]
