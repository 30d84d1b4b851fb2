"""Where two greedy answers of the same model part, and how near a tie that was in float32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parting:
    """The first difference of two answers."""

    prompt: int
    """Number of the prompt."""
    position: int
    """Tokens that both answers share."""
    gap: float
    """Difference of the two next tokens' log-probabilities in float32, nats."""


@torch.inference_mode()
def greedy(model: Any, prompts: Sequence[Tokens], tokens: int) -> list[Tokens]:
    """Return transformers' greedy answers; prompts of equal length share a batch, so that nothing is padded.

    Args:
        model: A transformers or PEFT model.
        prompts: Token ids.
        tokens: Most tokens of an answer.

    Returns:
        The answers in the prompts' order, each with its end token if it ended.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        by_length[len(prompt)].append(number)
    found: dict[int, Tokens] = {}
    ends = model.generation_config.eos_token_id
    stop = {ends} if isinstance(ends, int) else set(ends or ())
    for length, numbers in by_length.items():
        ids = torch.tensor([prompts[number] for number in numbers])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
        for number, row in zip(numbers, made[:, length:].tolist(), strict=True):
            end = next((place + 1 for place, token in enumerate(row) if token in stop), len(row))
            found[number] = tuple(row[:end])
    return [found[number] for number in range(len(prompts))]


@torch.inference_mode()
def partings(exact: Any, prompts: Sequence[Tokens], first: Sequence[Tokens], second: Sequence[Tokens]) -> list[Parting]:
    """Return where answers part.

    Args:
        exact: The model in float32, which says how near a tie each parting was.
        prompts: Token ids.
        first: Answers to them.
        second: Others.

    Returns:
        One entry for each prompt whose answers differ.
    """
    found = []
    for number, (prompt, one, other) in enumerate(zip(prompts, first, second, strict=True)):
        if one == other:
            continue
        shared = next(place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
        logits = exact(torch.tensor([[*prompt, *one[:shared]]])).logits[0, -1].double()
        found.append(Parting(number, shared, float((logits[one[shared]] - logits[other[shared]]).abs())))
    return found
