"""Answers of a model in this process, in batches of about equal length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch

from eul_trainer.evaluation.answerer import TRANSFORMERS, Draws
from eul_trainer.evaluation.greedy import can_be_greedy, greedy, rows_at_once
from eul_trainer.forward.batches import by_length
from eul_trainer.forward.encoding import Example, context_limit, encode
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row

SIZE = 32
"""Prompts of a batch."""


class Local:
    """A system of a model in memory, as an `Answerer`.

    Args:
        model: The model.
        identity: What tells the system from all others.
        on: Has the system on the model while its context lasts.
    """

    where = TRANSFORMERS

    def __init__(self, model: LoadedModel, identity: str, on: Callable[[], AbstractContextManager[None]]) -> None:
        self.identity = identity
        self._model, self._on = model, on

    def greedy(self, rows: Sequence[Row], tokens: int) -> Iterator[tuple[list[int], list[str]]]:
        """Answer rows greedily, batch by batch; see `Answerer`."""
        examples = self._encode(rows)
        with self._on():
            yield from answer_batches(self._model, examples, tokens)

    def drawn(self, rows: Sequence[Row], seeds: Sequence[int], draws: Draws) -> Iterator[tuple[int, list[str]]]:
        """Draw answers, one row a batch; the same seeds, rows and draws give the same ones."""
        model = self._model
        with self._on(), torch.random.fork_rng(devices=[]):
            for index, (example, seed) in enumerate(zip(self._encode(rows), seeds, strict=True)):
                torch.manual_seed(seed)
                new = generate(model, [example.prompt] * draws.count, draws.tokens, temperature=draws.temperature)
                yield index, [model.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in new]

    def _encode(self, rows: Sequence[Row]) -> list[Example]:
        return encode(self._model.tokenizer, rows, limit=context_limit(self._model.network))


def greedy_answers(model: LoadedModel, examples: Sequence[Example], *, tokens: int) -> list[str]:
    """Return one greedy answer of at most so many tokens per example, with whatever layers are on the model."""
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
