"""From the JSON of OpenAI's two generation requests to what the service runs.

Only what is named here is served. Everything else is refused by name, so that a field that reads through a layer can
not come in with a new version of somebody's API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from eul_serve.engine.base import ChatMessage, Constraint, Prompt, Sampling
from eul_serve.errors import InputError
from eul_serve.openai.fields import Fields, is_wholes
from eul_serve.rpc.runner import Ask

LONGEST = 1 << 20
"""Tokens of an answer without a limit of its own: as many as the context holds."""
COMPLETION_TOKENS = 16
"""What OpenAI makes of a completion without a limit."""
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_STRUCTURED: Mapping[str, Literal["choice", "regex", "json_schema", "grammar"]] = {
    "choice": "choice",
    "regex": "regex",
    "json": "json_schema",
    "grammar": "grammar",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, and how its answer is to look."""

    ask: Ask
    """What is to run."""
    chat: bool
    """Whether it is a chat; else a completion."""
    stream: bool
    """Whether the answer is to come piece by piece."""
    usage: bool
    """Whether a stream ends with the tokens used."""


def read_chat(data: object) -> Asked:
    """Return what a chat request asks for.

    Args:
        data: The body.

    Returns:
        The request.

    Raises:
        InputError: A field is of the wrong kind, or not served.
    """
    fields = Fields(data)
    prompt = _messages(fields)
    most = fields.whole("max_completion_tokens", fields.whole("max_tokens", LONGEST))
    sampling = _sampling(fields, most, logprobs=fields.flag("logprobs"))
    return _asked(fields, prompt, sampling, chat=True, echo=False)


def read_completion(data: object) -> Asked:
    """Return what a completion request asks for.

    Args:
        data: The body.

    Returns:
        The request.

    Raises:
        InputError: A field is of the wrong kind, or not served.
    """
    fields = Fields(data)
    prompt, echo = _prompt(fields), fields.flag("echo")
    logprobs = fields.whole("logprobs")
    if logprobs:
        raise InputError("logprobs: only those of the chosen tokens are told; expected 0")
    if echo and (logprobs is not None or not isinstance(prompt, str)):
        raise InputError("echo: served for a prompt that is text, without logprobs; ask over gRPC for more")
    sampling = _sampling(fields, fields.whole("max_tokens", COMPLETION_TOKENS), logprobs=logprobs is not None)
    return _asked(fields, prompt, sampling, chat=False, echo=echo)


def _asked(fields: Fields, prompt: Prompt, sampling: Sampling, *, chat: bool, echo: bool) -> Asked:
    ask = Ask(adapter=fields.text("model"), prompt=prompt, sampling=sampling, echo=echo)
    stream, options = fields.flag("stream"), fields.part("stream_options")
    usage = options.flag("include_usage") if options else False
    for rest in (options, fields):
        if rest is not None:
            rest.end()
    return Asked(ask=ask, chat=chat, stream=stream, usage=usage)


def _sampling(fields: Fields, most: int | None, *, logprobs: bool) -> Sampling:
    samples = fields.whole("n", 1)
    return Sampling(
        max_tokens=LONGEST if most is None else most,
        temperature=fields.number("temperature", 1.0),
        top_p=fields.number("top_p", 1.0),
        top_k=max(0, fields.whole("top_k", 0) or 0),  # vLLM's clients say -1 for all
        seed=fields.whole("seed"),
        stop=fields.texts("stop"),
        logprobs=logprobs,
        samples=1 if samples is None else samples,
        logit_bias=_bias(fields),
        allowed_tokens=fields.wholes("allowed_token_ids"),
        constraint=_constraint(fields),
    )


def _bias(fields: Fields) -> dict[int, float]:
    found = fields.take("logit_bias") or {}
    try:
        biased = {int(token): float(bias) for token, bias in dict(found).items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise fields.wrong("logit_bias", "numbers by token id", found) from error
    if any(token < 0 for token in biased):
        raise fields.wrong("logit_bias", "token ids of 0 or more", found)
    return biased


def _constraint(fields: Fields) -> Constraint | None:
    form, structured = fields.part("response_format"), fields.part("structured_outputs")
    found = [*_of_format(form), *_of_structured(structured)]
    if len(found) > 1:
        raise InputError("response_format: expected one form of an answer, found several")
    return found[0] if found else None


def _of_format(form: Fields | None) -> list[Constraint]:
    if form is None:
        return []
    kind, schema = form.text("type"), form.part("json_schema")
    form.end()
    if kind == "text":
        return []
    if kind == "json_object":
        return [Constraint(kind="json_schema", texts=('{"type": "object"}',))]
    if kind != "json_schema" or schema is None:
        raise InputError("response_format: expected type text, json_object, or json_schema with a json_schema")
    found = schema.take("schema")
    for name in ("name", "description", "strict"):
        schema.take(name)
    schema.end()
    return [Constraint(kind="json_schema", texts=(json.dumps(found or {}),))]


def _of_structured(structured: Fields | None) -> list[Constraint]:
    found: list[Constraint] = []
    for name, kind in _STRUCTURED.items():
        value = structured.take(name) if structured else None
        if value is None:
            continue
        texts = value if kind == "choice" and isinstance(value, list) else [value]
        told = [one if isinstance(one, str) else json.dumps(one) for one in texts]
        found.append(Constraint(kind=kind, texts=tuple(told)))
    if structured is not None:
        structured.end()
    return found


def _messages(fields: Fields) -> tuple[ChatMessage, ...]:
    listed = fields.take("messages")
    if not isinstance(listed, list):
        raise fields.wrong("messages", "a list of messages", listed)
    return tuple(_message(one, f"messages.{index}.") for index, one in enumerate(listed))


def _message(data: object, where: str) -> ChatMessage:
    fields = Fields(data, where)
    role, content = fields.text("role"), fields.take("content")
    fields.end()
    if role not in _ROLES:
        raise InputError(f"{where}role: expected {', '.join(_ROLES)}, found {role[:32]!r}")
    return ChatMessage(role=_ROLES[role], content=_content(content, where))


def _content(content: Any, where: str) -> str:  # noqa: ANN401  # JSON
    """Return a message's text, which may come in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise InputError(f"{where}content: expected a text or a list of texts")
    texts: list[str] = []
    for part in content:
        fields = Fields(part, f"{where}content.")
        if fields.text("type") != "text":
            raise InputError(f"{where}content: this server reads text alone; leave out parts of another type")
        texts.append(fields.text("text"))
        fields.end()
    return "".join(texts)


def _prompt(fields: Fields) -> Prompt:
    found = fields.take("prompt")
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str | list):
        found = found[0]
    if isinstance(found, str):
        return found
    if is_wholes(found):
        return tuple(cast(list[int], found))
    raise InputError(
        "prompt: expected one prompt, a text or a list of token ids; send several as requests of their own"
    )
