"""Running a model for its answers alone: hidden states and logits at answer positions, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_trainer.batches import Batch, collate, collate_pairs
from eul_trainer.encoding import Example, shared_prefix
from eul_trainer.model import LoadedModel, Network

MIN_PREFIX = 4
"""Shared tokens below which running them apart costs more than it saves."""


class Runner:
    """Batches for one model and one set of rows, whose shared first tokens are run once per batch."""

    def __init__(self, model: LoadedModel, examples: Sequence[Example]) -> None:
        self.model = model
        self.network = model.network
        tokenizer = model.tokenizer
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)
        self.prefix = self._shared(examples)

    def _shared(self, examples: Sequence[Example]) -> int:
        config = self.network.config
        # A sliding window's cache may drop what later tokens need; an encoder sees all tokens at once.
        if self.model.encoder_decoder or getattr(config, "sliding_window", None):
            return 0
        length = shared_prefix(examples)
        return length if length >= MIN_PREFIX else 0

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Pad examples, which must be among or begin like those that the runner was made for."""
        if self.model.encoder_decoder:
            start = int(self.network.config.decoder_start_token_id)
            return collate_pairs(examples, start, self.pad, self.model.device)
        return collate(examples, self.prefix, self.pad, self.model.device)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return what the output head reads at the answer positions, (T, d)."""
        return _encoder_decoder(self.network, batch) if self.model.encoder_decoder else _decoder(self.network, batch)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits for states from `hidden`, (T, V), float32."""
        logits: torch.Tensor = self.network.get_output_embeddings()(hidden)
        return logits.float()


def _decoder(network: Network, batch: Batch) -> torch.Tensor:
    rows, width = batch.ids.shape
    first = len(batch.prefix)
    cache = None
    if first:
        cache = network.base_model(batch.prefix[None], use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)
    # Padding is on the right, so the causal mask alone keeps it from every counted position.
    places = torch.arange(first, first + width, device=batch.ids.device).expand(rows, -1)
    output = network.base_model(batch.ids, past_key_values=cache, position_ids=places, use_cache=cache is not None)
    states: torch.Tensor = output.last_hidden_state.reshape(rows * width, -1)
    return states[batch.positions]


def _encoder_decoder(network: Network, batch: Batch) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = network.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        network(input_ids=batch.encoder_ids, attention_mask=batch.encoder_mask, decoder_input_ids=batch.ids)
    finally:
        hook.remove()
    return seen[0].reshape(batch.ids.numel(), -1)[batch.positions]
