"""The shapes of OpenAI's answers.

`system_fingerprint` is the revision that answered. Tokens in log-probabilities are named by their id, as vLLM does on
request: the text of a token alone is often no text.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from eul_serve.engine.base import Piece
from eul_serve.errors import EngineError

_ENDED = ("stop", "length")
_WORDS = {True: ("chatcmpl", "chat.completion"), False: ("cmpl", "text_completion")}
Json = dict[str, Any]


@dataclass(slots=True)
class Gathered:
    """One answer as it grows."""

    text: str = ""
    """What was made."""
    tokens: list[int] = field(default_factory=list)
    """Its tokens."""
    logprobs: list[float] = field(default_factory=list)
    """Their log-probabilities in nats, where asked for."""
    reason: str | None = None
    """How it ended."""

    def add(self, piece: Piece) -> None:
        """Take a piece."""
        self.text += piece.text
        self.tokens.extend(piece.token_ids)
        self.logprobs.extend(piece.logprobs)
        self.reason = piece.finish_reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all messages of one answer have in common."""

    chat: bool
    """Whether it is a chat; else a completion."""
    id: str
    """Id of the request."""
    model: str
    """What the caller named."""
    revision: str
    """`sha256:<hex>`, or `base`."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    def whole(self, choices: list[Json], used: Json) -> Json:
        """Return an answer in one message."""
        return self._message("", choices) | {"usage": used}

    def chunk(self, choices: list[Json], used: Json | None = None) -> Json:
        """Return one message of a stream."""
        suffix = ".chunk" if self.chat else ""
        return self._message(suffix, choices) | ({} if used is None else {"usage": used})

    def choice(self, index: int, answer: Gathered, lead: str = "") -> Json:
        """Return a whole choice.

        Args:
            index: Its number.
            answer: What was made.
            lead: What is put in front of it.

        Returns:
            The choice.
        """
        text = lead + answer.text
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": index, **said, **self._rest(answer)}

    def delta(self, index: int, answer: Gathered, *, first: bool = False) -> Json:
        """Return what a piece adds to a choice.

        Args:
            index: The choice's number.
            answer: The piece.
            first: Whether it is the first of its choice.

        Returns:
            The choice's next part.
        """
        said: Json = {"text": answer.text}
        if self.chat:
            said = {"delta": {**({"role": "assistant"} if first else {}), "content": answer.text}}
        return {"index": index, **said, **self._rest(answer)}

    def _rest(self, answer: Gathered) -> Json:
        return {"logprobs": self._logprobs(answer) if answer.logprobs else None, "finish_reason": answer.reason}

    def _logprobs(self, answer: Gathered) -> Json:
        names = [f"token_id:{token}" for token in answer.tokens]
        if self.chat:
            pairs = zip(names, answer.logprobs, strict=True)
            return {
                "content": [{"token": name, "logprob": one, "bytes": None, "top_logprobs": []} for name, one in pairs]
            }
        return {"tokens": names, "token_logprobs": answer.logprobs, "top_logprobs": None, "text_offset": []}

    def _message(self, suffix: str, choices: list[Json]) -> Json:
        prefix, kind = _WORDS[self.chat]
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind + suffix,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.revision,
            "choices": choices,
        }


def usage(read: int, made: int) -> Json:
    """Return the tokens used."""
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def check_ended(answers: list[Gathered]) -> None:
    """Return when every answer came to its end.

    Args:
        answers: The answers.

    Raises:
        EngineError: One was broken off, which is no answer.
    """
    if any(answer.reason not in _ENDED for answer in answers):
        raise EngineError("the engine stopped before the answer ended; try again")
