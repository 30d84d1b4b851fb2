"""Greedy answers of a model, in batches of about equal length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.greedy import can_be_greedy, greedy, rows_at_once
from eul_trainer.evaluation.scoring import Tick
from eul_trainer.evaluation.systems import Systems
from eul_trainer.forward.batches import by_length
from eul_trainer.forward.encoding import Example, context_limit, encode
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row, digest_rows

MAX_NEW_TOKENS = 32
SIZE = 32
"""Prompts of a batch."""


def answer(
    systems: Systems, names: Sequence[str], rows: Sequence[Row], tokens: int, cache: Cache, tick: Tick
) -> dict[str, list[str]]:
    """Answer rows' prompts greedily.

    Args:
        systems: The systems.
        names: Those that answer.
        rows: The rows; their completions are not read.
        tokens: Most tokens per answer.
        cache: Where answers are kept.
        tick: Told about every batch.

    Returns:
        Per system, one answer a row, in the order of the rows.
    """
    model = systems.model
    keys = [digest_rows([Row(prompt=row.prompt, completion="")]) for row in rows]
    times, found = Counter(keys), {}
    for name in names:
        kept = cache.of(systems.identity(name), "answer", tokens=tokens)
        due = {key: row for key, row in zip(keys, rows, strict=True) if key not in kept}
        tick(sum(key not in due for key in keys), name)
        examples = encode(model.tokenizer, list(due.values()), limit=context_limit(model.network))
        wanted = list(due)
        with systems.on(name):
            for indices, texts in answer_batches(model, examples, tokens):
                new = {wanted[index]: text for index, text in zip(indices, texts, strict=True)}
                kept.add(new)
                tick(sum(times[key] for key in new), name)
        found[name] = [kept[key] for key in keys]
    return found


def greedy_answers(model: LoadedModel, examples: Sequence[Example], *, tokens: int = MAX_NEW_TOKENS) -> list[str]:
    """Return one greedy answer per example, with whatever layers are on the model; see `answer`."""
    answers: dict[int, str] = {}
    for indices, texts in answer_batches(model, examples, tokens):
        answers |= dict(zip(indices, texts, strict=True))
    return [answers[index] for index in range(len(examples))]


def answer_batches(
    model: LoadedModel, examples: Sequence[Example], tokens: int
) -> Iterator[tuple[list[int], list[str]]]:
    """Answer prompts batch by batch.

    Args:
        model: The model, with whatever layers are on it.
        examples: The rows; their answers are not read.
        tokens: Most tokens per answer.

    Yields:
        Indices of examples, and their answers.
    """
    packed = can_be_greedy(model)
    take = greedy if packed else generate
    longest = max((len(example.prompt) for example in examples), default=0) + tokens
    for indices in by_length(examples, rows_at_once(model, longest) if packed else SIZE):
        found = take(model, [examples[index].prompt for index in indices], tokens)
        yield indices, [model.tokenizer.decode(new, skip_special_tokens=True).strip() for new in found]


@torch.no_grad()
def generate(
    model: LoadedModel, prompts: Sequence[Sequence[int]], tokens: int, temperature: float = 0.0
) -> list[list[int]]:
    """Return the new tokens behind prompts, with whatever layers are on the model.

    Args:
        model: The model.
        prompts: Token ids.
        tokens: Most new tokens.
        temperature: What they are drawn at; 0 takes the likeliest.

    Returns:
        Token ids, what comes after the end of an answer included.
    """
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
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_p=None,
        top_k=0 if temperature else None,  # all tokens, where the model's own settings would cut some off
        pad_token_id=pad,
    )
    start = 0 if model.encoder_decoder else width
    return [row[start:].tolist() for row in found]
