"""Rows as tokens: the prompt rendered as the server renders it, and the answer after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eul_serve.errors import InputError
from eul_trainer.model.load import Network, Tokenizer
from eul_trainer.records import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row as token ids."""

    prompt: tuple[int, ...]
    """The rendered prompt, up to where the model starts to answer."""
    answer: tuple[int, ...]
    """The answer's tokens, which alone are counted in every loss."""

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.answer)


def render_prompt(tokenizer: Tokenizer, prompt: str) -> tuple[int, ...]:
    """Return the token ids of a prompt: one user turn of the chat template, or the bare text without a template."""
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return tuple(tokenizer(prompt)["input_ids"])


def encode(tokenizer: Tokenizer, rows: Sequence[Row], *, limit: int, end_token: bool = False) -> list[Example]:
    """Turn rows into token ids.

    Args:
        tokenizer: The base model's tokenizer.
        rows: The rows.
        limit: Tokens that the model can read.
        end_token: Whether the token that ends a turn counts as part of the answer.

    Returns:
        One example per row.

    Raises:
        InputError: A row is longer than the model can read.
    """
    end = (int(tokenizer.eos_token_id),) if end_token and tokenizer.eos_token_id is not None else ()
    gap = "" if tokenizer.chat_template else " "
    examples = []
    for number, row in enumerate(rows, 1):
        answer = tuple(tokenizer(gap + row.completion, add_special_tokens=False)["input_ids"])
        example = Example(prompt=render_prompt(tokenizer, row.prompt), answer=answer + end)
        if not 0 < example.length <= limit or not answer:
            where = row.where or f"row {number}"
            raise InputError(f"{where}: expected 1 to {limit} tokens, found {example.length}; shorten the row")
        examples.append(example)
    return examples


def encode_alone(tokenizer: Tokenizer, rows: Sequence[Row], *, limit: int) -> list[Example]:
    """Turn answers into token ids as text by itself, with no question before it.

    Args:
        tokenizer: The base model's tokenizer.
        rows: Rows; their prompts are not read.
        limit: Tokens that the model can read; what is longer is cut off.

    Returns:
        One example per row, behind a new line, or the token that ends a text where the tokenizer has no new line.
    """
    # A chat model's token for the start of a text may stand for the start of a turn, behind which names of roles come.
    start = tokenizer("\n", add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id or 0]
    texts = [tokenizer(row.completion, add_special_tokens=False)["input_ids"] for row in rows]
    return [Example(prompt=tuple(start), answer=tuple(text[: limit - len(start)])) for text in texts]


def context_limit(network: Network) -> int:
    """Return how many tokens a model can read at once."""
    for name in ("max_position_embeddings", "n_positions"):
        if value := getattr(network.config, name, None):
            return int(value)
    return 512


def shared_prefix(examples: Sequence[Example]) -> int:
    """Return how many first tokens all prompts share: a chat template's system turn, which then is run only once.

    At least one token of each prompt stays outside, since the answer's first logits come from it.
    """
    shortest = min(len(example.prompt) for example in examples) - 1
    first = examples[0].prompt
    for position in range(shortest):
        if any(example.prompt[position] != first[position] for example in examples):
            return position
    return max(shortest, 0)
