"""Greedy answers of a decoder-only model: prompts packed, so that what they share is read once; rows end by themselves.

The same tokens as transformers' `generate` takes without sampling, up to near ties, in about half of the time: no
padding, no copies of the keys that several heads share, and no work for rows whose answer has come to its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_trainer.forward.decoder import Blocks
from eul_trainer.forward.decoding import Decoding, KeysValues
from eul_trainer.forward.packing import pack
from eul_trainer.model.load import LoadedModel, Network

HARMLESS = {
    "_from_model_config", "bos_token_id", "do_sample", "eos_token_id", "max_length", "max_new_tokens", "pad_token_id",
    "temperature", "top_k", "top_p", "transformers_version", "use_cache",
}  # fmt: skip
"""Settings of generation that change nothing of a greedy answer but where it ends."""
FEWER = 0.75
"""Share of the rows at which those that have ended are taken out."""
ROOM = 2**30
"""Bytes of keys and values that may be kept."""
MOST = 128
"""Most rows that are answered at once: beyond it a step gets no faster by row."""


def can_be_greedy(model: LoadedModel) -> bool:
    """Return whether a model's answers are the likeliest tokens and no more: no penalties, no encoder."""
    settings = model.network.generation_config.to_diff_dict()
    return not model.encoder_decoder and not any(value for name, value in settings.items() if name not in HARMLESS)


def rows_at_once(model: LoadedModel, tokens: int) -> int:
    """Return how many rows are answered at once: the weights are read once a step, whatever the number.

    Args:
        model: The model.
        tokens: Most tokens of a row, its answer included.

    Returns:
        1 to MOST.
    """
    config = model.network.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    row: int = 2 * config.num_hidden_layers * heads * width * model.network.dtype.itemsize * max(tokens, 1)
    return max(1, min(MOST, ROOM // row))


@torch.no_grad()
def greedy(model: LoadedModel, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Return the likeliest new tokens behind prompts, with whatever layers are on the model.

    Args:
        model: The model; `can_be_greedy` holds.
        prompts: Token ids, none of them empty.
        tokens: Most new tokens.

    Returns:
        Token ids, the one that ends an answer included.
    """
    network, blocks = model.network, Blocks(network=model.network)
    head, ends = network.get_output_embeddings(), _ends(network)
    packing, paths = pack(prompts, model.device)
    seen: list[KeysValues] = []
    states = blocks.run(packing, blocks.embed(packing), kept=seen)[0]
    rows = Decoding(seen, paths, tokens)
    found: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts)))  # which prompt each of the rows is
    states = states[torch.tensor([path[-1] for path in paths], device=model.device)]
    for number in range(tokens):
        rows.ids = head(states).argmax(-1)
        for row, token in zip(going, rows.ids.tolist(), strict=True):
            if not (found[row] and found[row][-1] in ends):
                found[row].append(token)
        left = [place for place, row in enumerate(going) if found[row][-1] not in ends]
        if not left or number == tokens - 1:
            break
        if len(left) <= FEWER * len(going):
            rows.keep(torch.tensor(left, device=model.device))
            going = [going[place] for place in left]
        states = blocks.run(rows, blocks.embed(rows))[0]
        rows.read()
    return found


def _ends(network: Network) -> set[int]:
    """Return the tokens that end an answer."""
    found = network.generation_config.eos_token_id
    return set(found) if isinstance(found, list) else {found} - {None}
