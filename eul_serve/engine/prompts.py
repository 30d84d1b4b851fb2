"""From a prompt to token ids, with the tokenizer and chat template of the base model's directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eul_serve.engine.base import ChatMessage, Prompt
from eul_serve.errors import InputError

ROLES = ("system", "user", "assistant")


class Prompts:
    """Encodes prompts for one model."""

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401  # untyped library
        vocabulary: int,
        max_context: int,
        ends: frozenset[int] = frozenset(),
    ) -> None:
        """Take a tokenizer; `load` reads one.

        Args:
            tokenizer: A tokenizer of transformers.
            vocabulary: Number of tokens that the model knows.
            max_context: Longest prompt and answer together, in tokens.
            ends: Tokens that end an answer.
        """
        self._tokenizer, self._vocabulary, self.max_context = tokenizer, vocabulary, max_context
        self.ends = ends
        """Tokens that end an answer."""

    @classmethod
    def load(cls, model: Path, vocabulary: int, max_context: int) -> Prompts:
        """Read the tokenizer of a model directory."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
        return cls(tokenizer, vocabulary, max_context, _ends(model, tokenizer.eos_token_id))

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt.

        Args:
            prompt: What to encode; text gets the special tokens of the tokenizer, messages those of the template.

        Returns:
            The ids, at least one and fewer than the context holds.

        Raises:
            InputError: An empty or too long prompt, messages without a template, an unknown role, or a bad token id.
        """
        if isinstance(prompt, str):
            ids = tuple(self._tokenizer(prompt)["input_ids"])
        elif prompt and isinstance(prompt[0], ChatMessage):
            ids = self._encode_messages(prompt)
        else:
            ids = tuple(prompt)
        self.check(ids)
        return ids

    def decode(self, ids: tuple[int, ...]) -> str:
        """Return the text of an answer's tokens, without special ones."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def check(self, ids: tuple[int, ...]) -> None:
        """Check that token ids are a prompt that leaves room for an answer.

        Args:
            ids: The prompt.

        Raises:
            InputError: None at all, too many, or one outside the vocabulary.
        """
        if not ids:
            raise InputError("prompt: expected at least one token, found none")
        if len(ids) >= self.max_context:
            raise InputError(
                f"prompt: expected at most {self.max_context - 1} tokens (the context of {self.max_context} less one "
                f"for the answer), found {len(ids)}; shorten the prompt"
            )
        for token in ids:
            if not 0 <= token < self._vocabulary:
                raise InputError(f"token id {token}: expected 0 to {self._vocabulary - 1}")

    def _encode_messages(self, messages: tuple[Any, ...]) -> tuple[int, ...]:
        if not self._tokenizer.chat_template:
            raise InputError("messages: this model has no chat template; send the prompt as text")
        for message in messages:
            if message.role not in ROLES:
                raise InputError(f"role {message.role[:50]!r}: expected one of {', '.join(ROLES)}")
        conversation = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program, and may refuse an order of roles in its own way
            raise InputError(f"messages: the model's chat template refuses them: {error}") from error
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _ends(model: Path, own: int | None) -> frozenset[int]:
    """Return the tokens that end an answer: the tokenizer's, and those that the model's files name."""
    found = {own}
    for name in ("config.json", "generation_config.json"):
        path = model / name
        named = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
        found.update(named if isinstance(named, list) else [named])
    return frozenset(token for token in found if isinstance(token, int))
