"""Greedy answers of a model, in batches of about equal length."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_trainer.forward.batches import by_length
from eul_trainer.forward.encoding import Example
from eul_trainer.model.load import LoadedModel

MAX_NEW_TOKENS = 32


@torch.no_grad()
def greedy_answers(
    model: LoadedModel, examples: Sequence[Example], *, tokens: int = MAX_NEW_TOKENS, size: int = 32
) -> list[str]:
    """Answer prompts greedily.

    Args:
        model: The model, with whatever layers are on it.
        examples: The rows; their answers are not read.
        tokens: Most tokens per answer.
        size: Prompts per batch.

    Returns:
        One answer per row.
    """
    answers: dict[int, str] = {}
    for indices in by_length(examples, size):
        prompts = [examples[index].prompt for index in indices]
        for index, new in zip(indices, _generate(model, prompts, tokens), strict=True):
            answers[index] = model.tokenizer.decode(new, skip_special_tokens=True).strip()
    return [answers[index] for index in range(len(examples))]


def _generate(model: LoadedModel, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    pad = model.tokenizer.pad_token_id
    pad = int(pad if pad is not None else model.tokenizer.eos_token_id or 0)
    width = max(map(len, prompts))
    # On the left, so that every row's answer starts at the same place.
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    found = model.network.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=pad,
    )
    start = 0 if model.encoder_decoder else width
    return [row[start:].tolist() for row in found]
