"""What a server answers, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eul_serve.v1 import bundle_service_pb2 as bundles
from eul_serve.v1 import generation_service_pb2 as pb
from eul_serve.v1 import tenant_service_pb2 as tenants

_REASONS = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length", pb.FINISH_REASON_ABORT: "abort"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens read and made."""

    prompt_tokens: int
    """Tokens of the prompt."""
    completion_tokens: int
    """Tokens of the answer."""

    @classmethod
    def of(cls, message: pb.Usage) -> Usage:
        """Read the message."""
        return cls(prompt_tokens=message.prompt_tokens, completion_tokens=message.completion_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of several answers."""

    text: str
    """The text."""
    finish_reason: str | None
    """stop or length."""
    token_ids: tuple[int, ...]
    """The tokens."""
    logprobs: tuple[float, ...]
    """Their log-probabilities in nats, where asked for."""

    @classmethod
    def of(cls, message: pb.Choice) -> Choice:
        """Read the message."""
        return cls(**_choice(message))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a streamed answer."""

    text: str
    """New text."""
    revision: str
    """The revision that produces the whole answer, `sha256:<hex>` or `base`."""
    finish_reason: str | None
    """stop or length in the last piece."""
    usage: Usage
    """Tokens read and made so far."""
    token_ids: tuple[int, ...]
    """New tokens."""
    logprobs: tuple[float, ...]
    """Their log-probabilities in nats, where asked for."""

    choice: int
    """Which of several answers it is a piece of, from 0."""
    prompt_token_ids: tuple[int, ...]
    """The prompt's tokens, where asked for; in the first piece."""
    prompt_logprobs: tuple[float, ...]
    """Log-probabilities in nats of the prompt's tokens from the second on, where asked for."""

    @classmethod
    def of(cls, message: pb.GenerateStreamResponse) -> Part:
        """Read the message."""
        return cls(**_values(message), choice=message.choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    text: str
    """The text."""
    revision: str
    """The revision that produced it, `sha256:<hex>` or `base`."""
    finish_reason: str | None
    """stop or length."""
    usage: Usage
    """Tokens read and made."""
    token_ids: tuple[int, ...]
    """The tokens."""
    logprobs: tuple[float, ...]
    """Their log-probabilities in nats, where asked for."""

    others: tuple[Choice, ...]
    """The answers after the first, where several were asked for."""
    prompt_token_ids: tuple[int, ...]
    """The prompt's tokens, where asked for."""
    prompt_logprobs: tuple[float, ...]
    """Log-probabilities in nats of the prompt's tokens from the second on, where asked for."""

    @classmethod
    def of(cls, message: pb.GenerateResponse) -> Answer:
        """Read the message."""
        return cls(**_values(message), others=tuple(Choice.of(one) for one in message.others))


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """A chosen label."""

    label: str
    """The most likely label."""
    revision: str
    """The revision that chose it."""
    probabilities: dict[str, float]
    """Every label with its probability, in the order asked; they sum to 1."""

    @classmethod
    def of(cls, message: pb.ClassifyResponse) -> Classification:
        """Read the message."""
        pairs = {one.label: one.probability for one in message.probabilities}
        return cls(label=message.label, revision=message.revision, probabilities=pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleAlias:
    """An alias that the caller may use."""

    name: str
    """Name of the bundle."""
    alias: str
    """The alias; empty where the policy names a revision."""
    revision: str
    """The revision that new requests get; empty while none is in the engine."""
    state: str
    """published, announced, pulled, verified, loaded, warm, active, draining, gone or failed."""
    default: bool
    """Whether an empty adapter means this alias."""

    @classmethod
    def of(cls, message: bundles.BundleAlias) -> BundleAlias:
        """Read the message."""
        return cls(
            name=message.name,
            alias=message.alias,
            revision=message.revision,
            state=state_name(message.state),
            default=message.default,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """The caller, as the policy in force has it."""

    name: str
    """Its name."""
    default: str
    """What an empty adapter means; empty where it has to name one."""
    bundles: tuple[str, ...]
    """What it may use."""
    base: bool
    """Whether it may use the base model."""
    rights: tuple[str, ...]
    """Its rights."""
    requests_per_minute: int | None
    """Requests in any minute; None where there is no limit."""
    tokens_per_minute: int | None
    """Tokens read and made in any minute; None where there is no limit."""
    concurrent_requests: int
    """Requests at once, waiting ones included."""
    priority: int
    """Share of the engine while others wait too."""
    in_flight: int
    """Its requests that run or wait now."""

    @classmethod
    def of(cls, message: tenants.GetTenantResponse) -> Tenant:
        """Read the message."""
        return cls(
            name=message.name,
            default=message.default_adapter,
            bundles=tuple(message.bundles),
            base=message.base,
            rights=tuple(message.rights),
            requests_per_minute=message.requests_per_minute or None,
            tokens_per_minute=message.tokens_per_minute or None,
            concurrent_requests=message.concurrent_requests,
            priority=message.priority,
            in_flight=message.in_flight,
        )


def state_name(state: bundles.BundleState) -> str:
    """Return the short name of a state: `active` for BUNDLE_STATE_ACTIVE."""
    return bundles.BundleState.Name(state).removeprefix("BUNDLE_STATE_").lower()


def _values(message: pb.GenerateResponse | pb.GenerateStreamResponse) -> dict[str, Any]:
    """Return the fields that a whole answer and a piece of one have in common."""
    return {
        **_choice(message),
        "revision": message.revision,
        "usage": Usage.of(message.usage),
        "prompt_token_ids": tuple(message.prompt_token_ids),
        "prompt_logprobs": tuple(message.prompt_logprobs),
    }


def _choice(message: pb.Choice | pb.GenerateResponse | pb.GenerateStreamResponse) -> dict[str, Any]:
    return {
        "text": message.text,
        "finish_reason": _REASONS.get(message.finish_reason),
        "token_ids": tuple(message.token_ids),
        "logprobs": tuple(message.logprobs),
    }
