"""What a membership attack sees of a row: its text, and what the model thinks of each token of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """One row under one model; one number a token of the answer."""

    text: str
    """The answer's text."""
    logprobs: Sequence[float]
    """Log-probability of the token, nats."""
    means: Sequence[float] = ()
    """Mean of the log-probability over the vocabulary, weighted by the probabilities, nats; read by Min-K++ alone."""
    deviations: Sequence[float] = ()
    """Its standard deviation, nats; read by Min-K++ alone."""

    @property
    def loss(self) -> float:
        """Mean loss of the tokens, nats."""
        return -sum(self.logprobs) / len(self.logprobs)
