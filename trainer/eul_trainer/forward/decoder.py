"""Running the blocks of a decoder-only model over packed rows, from any block on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from eul_serve.errors import InputError
from eul_trainer.forward.attention import packed
from eul_trainer.forward.decoding import Decoding, KeysValues
from eul_trainer.forward.packing import Packing
from eul_trainer.model.depth import ALL, chosen_blocks
from eul_trainer.model.load import LoadedModel, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The parts of a decoder-only transformers model, by what they do."""

    network: Network
    """The transformers model with its head."""

    @property
    def _body(self) -> Network:
        return self.network.base_model

    @property
    def blocks(self) -> Network:
        """The transformer blocks, lowest first."""
        body = self._body
        return body.h if hasattr(body, "h") else body.layers

    def embed(self, packing: Packing | Decoding) -> torch.Tensor:
        """Return what the lowest block reads, (1, N, d)."""
        body = self._body
        if hasattr(body, "wpe"):
            states: torch.Tensor = body.wte(packing.ids[None]) + body.wpe(packing.places[None])
            return states
        return body.embed_tokens(packing.ids[None])  # type: ignore[no-any-return]  # transformers has no types

    def run(
        self,
        packing: Packing | Decoding,
        states: torch.Tensor,
        *,
        first: int = 0,
        last: int | None = None,
        checkpointing: bool = False,
        kept: list[KeysValues] | None = None,
    ) -> torch.Tensor:
        """Run some blocks.

        Args:
            packing: The rows.
            states: What block `first` reads, (1, N, d).
            first: The first block that is run.
            last: The block before which to stop; None runs all of them and the norm behind them.
            checkpointing: Whether a block's activations are computed again on the way back instead of being kept.
            kept: Given each block's keys and values, for rows that are to grow.

        Returns:
            The states behind the blocks, (1, N, d).
        """
        body = self._body
        places = packing.places[None]
        facts: dict[str, Any] = {"attention_mask": None, "position_ids": places, "packing": packing, "kept": kept}
        if hasattr(body, "rotary_emb"):
            facts["position_embeddings"] = body.rotary_emb(states, position_ids=places)
        for block in self.blocks[first:last]:
            call = partial(self._run_one, block, facts)
            again = checkpointing and torch.is_grad_enabled()
            states = checkpoint(call, states, use_reentrant=False) if again else call(states)
        if last is not None:
            return states
        norm = body.ln_f if hasattr(body, "ln_f") else body.norm
        return norm(states)  # type: ignore[no-any-return]  # transformers has no types

    def _run_one(self, block: Network, facts: dict[str, Any], states: torch.Tensor) -> torch.Tensor:
        with packed(self.network):  # here, so that a checkpointed block finds it again on the way back
            return block(states, **facts)  # type: ignore[no-any-return]  # transformers has no types


def block_numbers(model: LoadedModel, blocks: str) -> range:
    """Return the numbers of the chosen blocks of a decoder-only model.

    Args:
        model: The model.
        blocks: The choice, as `depth.chosen_blocks` reads it.

    Returns:
        The numbers, from 0.

    Raises:
        InputError: The model has no such block, or is an encoder-decoder.
    """
    if model.encoder_decoder:
        raise InputError(f"--blocks: expected {ALL!r} for an encoder-decoder model, found {blocks!r}")
    return chosen_blocks(blocks, len(Blocks(network=model.network).blocks))


def feed_forward_paths(model: LoadedModel, blocks: str) -> list[str]:
    """Return the paths of the feed-forward modules of the chosen blocks."""
    numbers = block_numbers(model, blocks)
    wanted = {id(Blocks(network=model.network).blocks[number]) for number in numbers}
    roots = [path for path, module in model.network.named_modules() if id(module) in wanted]
    return [f"{root}.{name}" for root in roots for name in model.targets]
