"""Between protobuf messages and our own types; pure."""

from __future__ import annotations

from collections.abc import Sequence

from eul_serve.engine.base import ChatMessage, Constraint, Piece, Prompt, Sampling
from eul_serve.errors import InputError
from eul_serve.swap.revision import Stage
from eul_serve.v1 import bundle_service_pb2 as bundles
from eul_serve.v1 import generation_service_pb2 as pb

_ROLES = {pb.ROLE_SYSTEM: "system", pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}
_REASONS = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "abort": pb.FINISH_REASON_ABORT,
}
_STATES: dict[Stage, bundles.BundleState] = {stage: getattr(bundles, f"BUNDLE_STATE_{stage.name}") for stage in Stage}


def prompt_of(message: pb.Prompt) -> Prompt:
    """Return a request's prompt.

    Args:
        message: The prompt as it came.

    Returns:
        Text, messages or token ids.

    Raises:
        InputError: No form of prompt is set, or a message has no role.
    """
    kind = message.WhichOneof("kind")
    if kind == "text":
        return message.text
    if kind == "tokens":
        return tuple(message.tokens.ids)
    if kind != "chat":
        raise InputError("prompt: none is set; give text, chat or tokens")
    return tuple(ChatMessage(role=_role(one), content=one.content) for one in message.chat.messages)


def _role(message: pb.ChatMessage) -> str:
    if message.role not in _ROLES:
        raise InputError(f"prompt.chat: role {message.role}: expected ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT")
    return _ROLES[message.role]


def sampling_of(message: pb.Sampling) -> Sampling:
    """Return a request's sampling settings; what is not set has the default of `Sampling`."""
    names = ("max_tokens", "temperature", "top_p", "top_k", "seed", "samples", "beams")
    given = {name: getattr(message, name) for name in names if message.HasField(name)}
    return Sampling(
        **given,
        stop=tuple(message.stop),
        logprobs=message.logprobs,
        logit_bias=dict(message.logit_bias),
        allowed_tokens=tuple(message.allowed_tokens),
        constraint=constraint_of(message.constraint) if message.HasField("constraint") else None,
        prompt_logprobs=message.prompt_logprobs,
    )


def constraint_of(message: pb.Constraint) -> Constraint:
    """Return what an answer must look like.

    Args:
        message: The constraint as it came.

    Returns:
        The constraint.

    Raises:
        InputError: No kind is set.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InputError("sampling.constraint: none is set; give choice, regex, json_schema or grammar")
    if kind == "choice":
        return Constraint(kind=kind, texts=tuple(message.choice.texts))
    return Constraint(kind=kind, texts=(getattr(message, kind),))


def finish_reason_of(reason: str | None) -> pb.FinishReason:
    """Return the protobuf form of an engine's finish reason."""
    return _REASONS.get(reason or "", pb.FINISH_REASON_UNSPECIFIED)


def stream_response(piece: Piece, revision: str, used: pb.Usage) -> pb.GenerateStreamResponse:
    """Return the message of one piece of an answer."""
    return pb.GenerateStreamResponse(
        text=piece.text,
        revision=revision,
        finish_reason=finish_reason_of(piece.finish_reason),
        usage=used,
        token_ids=piece.token_ids,
        logprobs=piece.logprobs,
        choice=piece.choice,
        prompt_logprobs=piece.prompt_logprobs,
    )


def usage(prompt_tokens: int, completion_tokens: int) -> pb.Usage:
    """Return the usage."""
    return pb.Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def state_of(stage: Stage | None) -> bundles.BundleState:
    """Return the protobuf form of a stage; None is a revision that the server does not hold."""
    return bundles.BUNDLE_STATE_PUBLISHED if stage is None else _STATES[stage]


def classify_response(
    labels: Sequence[str], probabilities: Sequence[float], revision: str, prompt_tokens: int
) -> pb.ClassifyResponse:
    """Return the answer to a classification.

    Args:
        labels: The labels of the request.
        probabilities: One for each label, summing to 1.
        revision: The revision that chose.
        prompt_tokens: Tokens read.

    Returns:
        The message, with the most likely label; the first of equals.
    """
    best = max(range(len(labels)), key=lambda index: probabilities[index])
    pairs = zip(labels, probabilities, strict=True)
    return pb.ClassifyResponse(
        label=labels[best],
        revision=revision,
        probabilities=[pb.LabelProbability(label=label, probability=value) for label, value in pairs],
        usage=usage(prompt_tokens, 0),
    )
