"""What the server asks of an engine. Imports no vllm, so that the service is tested on a fake beside the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One message of a conversation."""

    role: str
    """system, user or assistant."""
    content: str
    """The text."""


Prompt = str | tuple[ChatMessage, ...] | tuple[int, ...]
"""A prompt: plain text, chat messages, or token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What an answer must look like; a right that a policy must grant."""

    kind: Literal["choice", "regex", "json_schema", "grammar"]
    """What the texts are."""
    texts: tuple[str, ...]
    """The choices, or the one expression, schema or grammar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose tokens; the ranges are checked by the service."""

    max_tokens: int = 64
    """Most tokens to make, 1 or more."""
    temperature: float = 0.0
    """0 is greedy; at most 2."""
    top_p: float = 1.0
    """Nucleus mass, above 0 to 1."""
    top_k: int = 0
    """Most likely tokens to choose from; 0 is all."""
    seed: int | None = None
    """Seed of the sampler."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer."""
    logprobs: bool = False
    """Return each chosen token's log-probability; a right, as is everything below."""
    samples: int = 1
    """Answers to make, 1 or more."""
    beams: int = 0
    """Answers to search for that are likeliest as a whole; 0 makes them token by token."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of tokens, by token."""
    allowed_tokens: tuple[int, ...] = ()
    """The only tokens that may be chosen; none are all."""
    constraint: Constraint | None = None
    """What the answer must look like."""
    prompt_logprobs: bool = False
    """Return the log-probabilities of the prompt's tokens, from the second on."""

    @property
    def answers(self) -> int:
        """How many answers there are."""
        return max(self.samples, self.beams)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentBundle:
    """A verified bundle as the engine knows it."""

    revision: str
    """`sha256:<hex>` of its manifest."""
    id: int
    """Adapter id, 1 or more; fresh for every load and never used again."""
    path: Path
    """Absolute path under the verified cache, with the digest in it."""
    rank: int
    """Hidden units per layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One request to the engine. The service has already decided who may have it."""

    id: str
    """Unique id, for aborting."""
    token_ids: tuple[int, ...]
    """The prompt."""
    bundle: ResidentBundle | None
    """The bundle to apply; None is the base model, which a policy must have allowed."""
    salt: str
    """Salt of the prefix cache: HMAC of tenant, revision and policy epoch."""
    sampling: Sampling = field(default_factory=Sampling)
    """How to choose tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one engine step added to an answer."""

    text: str
    """New text."""
    token_ids: tuple[int, ...]
    """New tokens."""
    logprobs: tuple[float, ...] = ()
    """Their log-probabilities in nats, where asked for."""
    finish_reason: str | None = None
    """stop, length or abort in the answer's last piece."""
    choice: int = 0
    """Which of several answers it belongs to, from 0."""
    prompt_logprobs: tuple[float, ...] = ()
    """Log-probabilities of the prompt's tokens in nats, where asked for; once, with the first piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What the engine proved at start."""

    model: str
    """Directory of the base model."""
    fingerprint: str
    """Fingerprint that bundles must name: of the base model's files, or of what a quantised copy was made from."""
    max_context: int
    """Longest prompt and answer together, in tokens."""
    max_rank: int
    """Highest rank of a bundle."""
    slots: int
    """Bundles that can be in one batch."""
    capacity: int
    """Bundles kept in host memory."""
    batch: int
    """Requests that run at once; more would wait inside, first come first served."""
    dtype: str
    """dtype of the activations."""
    fine_tunes: bool = False
    """Whether composites are served."""


class Engine(Protocol):
    """An engine that runs one base model and hot-swaps bundles on it."""

    @property
    def info(self) -> EngineInfo:
        """What the engine proved at start."""
        ...

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt; chat messages go through the model's template.

        Args:
            prompt: What to encode; token ids are only checked.

        Returns:
            The ids, at least one and fewer than the context holds.

        Raises:
            InputError: Messages without a template, an unknown role, or token ids outside the vocabulary.
        """
        ...

    def generate(self, work: Work) -> AsyncIterator[Piece]:
        """Yield an answer piece by piece; closing the iterator stops the work.

        Args:
            work: The request; its bundle must be resident.

        Returns:
            The pieces; the last one has a finish reason.

        Raises:
            EngineError: The engine died, or the bundle is not resident.
        """
        ...

    async def score(self, work: Work, continuations: Sequence[tuple[int, ...]]) -> tuple[float, ...]:
        """Return the summed log-probability in nats of each continuation after the prompt."""
        ...

    async def load(self, bundle: ResidentBundle) -> dict[str, float]:
        """Bring a bundle into every worker and pin it in host memory.

        Args:
            bundle: A bundle with a fresh id.

        Returns:
            Seconds by stage: verify, cast and slot, where the engine can tell them.

        Raises:
            BundleFormatError: A worker refused the files.
            CapacityError: All places are pinned, or the rank is too high.
        """
        ...

    async def unload(self, bundle: ResidentBundle) -> None:
        """Remove a bundle from every worker; nothing happens where it is not loaded."""
        ...

    async def pin(self, bundle: ResidentBundle) -> None:
        """Let a resident bundle keep a slot of its own, so that its requests never wait for one.

        Args:
            bundle: The bundle.

        Raises:
            EngineError: It is not resident.
            CapacityError: No slot would be left for other bundles.
        """
        ...

    async def unpin(self, bundle: ResidentBundle) -> None:
        """Let a bundle's slot go again; nothing happens where it is not pinned."""
        ...

    async def resident(self) -> frozenset[int]:
        """Return the ids that every worker holds."""
        ...

    async def check(self) -> None:
        """Return when the engine can serve.

        Raises:
            EngineError: It cannot.
        """
        ...

    async def close(self) -> None:
        """Stop the engine and its processes."""
        ...
