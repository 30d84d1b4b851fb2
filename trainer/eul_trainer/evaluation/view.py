"""What a model makes of one row's answer, token by token, under teacher forcing: all that metrics of losses read."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 256
"""Answer tokens whose distribution over the vocabulary is held at once: 48 MiB at 49,152 words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One row under one system; one number a token of the answer."""

    logprobs: Sequence[float]
    """Log-probability of the token, nats."""
    ranks: Sequence[int]
    """How many tokens are likelier: 0 is the first choice."""
    means: Sequence[float]
    """Mean of the log-probability over the vocabulary, weighted by the probabilities, nats."""
    deviations: Sequence[float]
    """Its standard deviation, nats."""
    divergence: float | None = None
    """Mean KL(base || system) of the tokens, nats; None for the base model and for whole models beside it."""
    state: str = ""
    """Mean of the states before the output head, (d,), float16 in base64: what the paper's membership attack reads."""

    @property
    def representation(self) -> NDArray[np.float32]:
        """The state as numbers, (d,)."""
        import numpy as np

        return np.frombuffer(base64.b64decode(self.state), np.float16).astype(np.float32)

    @property
    def loss(self) -> float:
        """Mean loss of the tokens, nats."""
        return -sum(self.logprobs) / len(self.logprobs)

    @property
    def first(self) -> list[bool]:
        """Whether each token is the first choice."""
        return [rank == 0 for rank in self.ranks]

    def to_json(self) -> dict[str, Any]:
        """Return the view as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> View:
        """Read what `to_json` gave."""
        return cls(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSums:
    """What is kept of the distributions of several tokens, each (T,)."""

    logprobs: torch.Tensor
    ranks: torch.Tensor
    means: torch.Tensor
    deviations: torch.Tensor
    divergences: torch.Tensor | None
    hidden: torch.Tensor
    """The states before the output head, (T, d)."""

    def of(self, mine: torch.Tensor) -> View:
        """Return the view of the row whose tokens these are, (T,), boolean."""
        return View(
            logprobs=self.logprobs[mine].tolist(),
            ranks=self.ranks[mine].tolist(),
            means=self.means[mine].tolist(),
            deviations=self.deviations[mine].tolist(),
            divergence=None if self.divergences is None else self.divergences[mine].mean().item(),
            state=_packed(self.hidden[mine].float().mean(0)),
        )


def _packed(state: torch.Tensor) -> str:
    return base64.b64encode(state.half().numpy().tobytes()).decode()


def token_sums(
    head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, base: torch.Tensor | None
) -> TokenSums:
    """Run the output head on states, a few tokens at a time, and keep some numbers of each token.

    Args:
        head: The output head, from (T, d) to logits (T, V).
        hidden: The system's states before the head, (T, d).
        targets: The answer's tokens, (T,).
        base: The base model's states, (T, d); None measures no divergence.

    Returns:
        The numbers, float32, on the CPU.
    """
    parts = list(_parts(head, hidden, targets, base))
    joined = [torch.cat(found).cpu() for found in zip(*(part[:4] for part in parts), strict=True)]
    divergences = None if base is None else torch.cat([part[4] for part in parts]).cpu()
    logprobs, ranks, means, deviations = joined
    return TokenSums(
        logprobs=logprobs,
        ranks=ranks,
        means=means,
        deviations=deviations,
        divergences=divergences,
        hidden=hidden.cpu(),
    )


def _parts(
    head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, base: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, ...]]:
    for start in range(0, len(targets), CHUNK):
        place = slice(start, start + CHUNK)
        logprobs = head(hidden[place]).float().log_softmax(1)
        chances = logprobs.exp()
        means = (chances * logprobs).sum(1)
        spread = (chances * (logprobs - means[:, None]).square()).sum(1).sqrt()
        chosen = logprobs.gather(1, targets[place, None])[:, 0]
        divergence = means.new_zeros(len(means))
        if base is not None:
            expected = head(base[place]).float().log_softmax(1)
            divergence = (expected.exp() * (expected - logprobs)).sum(1)
        yield chosen, (logprobs > chosen[:, None]).sum(1), means, spread, divergence
