"""From Python values to the messages of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eul_serve.errors import InputError
from eul_serve.v1 import generation_service_pb2 as pb

Prompt = str | Sequence[int] | Sequence[tuple[str, str]]
"""Text, token ids, or messages as pairs of role (system, user, assistant) and text."""

_ROLES = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}


def prompt_message(prompt: Prompt) -> pb.Prompt:
    """Return the message of a prompt.

    Args:
        prompt: Text, token ids, or messages.

    Returns:
        The message.

    Raises:
        InputError: A role is unknown, or messages and token ids are mixed.
    """
    if isinstance(prompt, str):
        return pb.Prompt(text=prompt)
    chat, tokens = [], []
    for part in prompt:
        if isinstance(part, int):
            tokens.append(part)
        elif part[0] in _ROLES:
            chat.append(pb.ChatMessage(role=_ROLES[part[0]], content=part[1]))
        else:
            raise InputError(f"role {part[0]!r}: expected one of {', '.join(_ROLES)}")
    if chat and tokens:
        raise InputError("prompt: give messages or token ids, not both")
    return pb.Prompt(chat=pb.ChatMessages(messages=chat)) if chat else pb.Prompt(tokens=pb.TokenIds(ids=tokens))


def sampling_message(given: dict[str, Any]) -> pb.Sampling:
    """Return the settings that are not None.

    Args:
        given: Fields of `eul_serve.v1.Sampling` by name.

    Returns:
        The message.

    Raises:
        InputError: There is no such field, or it has another type.
    """
    if isinstance(given.get("constraint"), dict):
        given = {**given, "constraint": _constraint(given["constraint"])}
    try:
        return pb.Sampling(**{name: value for name, value in given.items() if value is not None})
    except (ValueError, TypeError) as error:
        raise InputError(f"sampling: {error}; see eul_serve.v1.Sampling for the fields and their types") from error


def _constraint(given: dict[str, Any]) -> pb.Constraint:
    """Return a constraint of one entry: `{"choice": ["yes", "no"]}`, or regex, json_schema or grammar with a text."""
    try:
        values: dict[str, Any] = {
            kind: pb.Texts(texts=value) if kind == "choice" else value for kind, value in given.items()
        }
        return pb.Constraint(**values)
    except (ValueError, TypeError) as error:
        raise InputError(f"sampling.constraint: {error}; give one of choice, regex, json_schema and grammar") from error
