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

CHUNK = 128
"""Answer tokens whose distribution over the vocabulary is held at once: 24 MiB at 49,152 words."""
BLOCK = 4
"""Those of them whose numbers are taken at once on a CPU: 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One row under one system; one number a token of the answer."""

    logprobs: Sequence[float]
    """Log-probability of the token, nats."""
    ranks: Sequence[int] = ()
    """How many tokens are likelier: 0 is the first choice. Empty, as what follows, where losses alone were asked."""
    means: Sequence[float] = ()
    """Mean of the log-probability over the vocabulary, weighted by the probabilities, nats."""
    deviations: Sequence[float] = ()
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
        """Return the view as plain JSON, without what was not asked."""
        return {name: value for name, value in asdict(self).items() if value not in ((), "", None)}

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
    head: torch.nn.Module, hidden: Mapping[str, torch.Tensor], base: torch.Tensor, targets: torch.Tensor
) -> dict[str, TokenSums]:
    """Run the output head on states of several systems, a few tokens at a time, and keep some numbers of each token.

    Args:
        head: The output head, from (T, d) to logits (T, V).
        hidden: The systems' states before the head, (T, d).
        base: The base model's; a system that has the same tensor has no divergence.
        targets: The answer's tokens, (T,).

    Returns:
        The numbers by system, float32, on the CPU.
    """
    parts: dict[str, list[tuple[torch.Tensor, ...]]] = {name: [] for name in hidden}
    for start in range(0, len(targets), CHUNK):
        place = slice(start, start + CHUNK)
        expected = head(base[place])
        for name, states in hidden.items():
            found = expected if states is base else head(states[place])
            parts[name] += _parts(found, targets[place], None if states is base else expected)
    return {name: _joined(found, hidden[name]) for name, found in parts.items()}


def token_logprobs(head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Run the output head on states, a few tokens at a time, and keep the log-probability of each token alone.

    Args:
        head: The output head, from (T, d) to logits (T, V).
        states: The states before the head, (T, d).
        targets: The answer's tokens, (T,).

    Returns:
        Log-probabilities, (T,), float32, on the CPU.
    """
    found = [torch.empty(0)]
    for start in range(0, len(targets), CHUNK):
        logits = head(states[start : start + CHUNK]).float()
        chosen = logits.gather(1, targets[start : start + CHUNK, None])[:, 0]
        found.append((chosen - logits.logsumexp(1)).cpu())
    return torch.cat(found)


def _parts(
    logits: torch.Tensor, targets: torch.Tensor, expected: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Go over logits a few tokens at a time: on a CPU those that fit into its cache, as every number is a pass."""
    size = BLOCK if logits.device.type == "cpu" else CHUNK
    for start in range(0, len(targets), size):
        place = slice(start, start + size)
        logprobs = logits[place].float().log_softmax(1)
        part = _numbers(logprobs, targets[place])
        yield part if expected is None else (*part, _divergence(expected[place].float().log_softmax(1), logprobs))


def _numbers(logprobs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return log-probability, rank, mean and deviation of each token: as few passes over (T, V) as they need."""
    chances = logprobs.exp()
    means = torch.linalg.vecdot(chances, logprobs)
    deviations = torch.linalg.vecdot(chances, (logprobs - means[:, None]).square_()).sqrt()
    chosen = logprobs.gather(1, targets[:, None])
    ranks = (logprobs > chosen).to(logprobs.dtype).sum(1).long()  # booleans add up five times as slowly on a CPU
    return chosen[:, 0], ranks, means, deviations


def _divergence(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    divergence: torch.Tensor = torch.linalg.vecdot(expected.exp(), expected - found)
    return divergence


def _joined(parts: Sequence[tuple[torch.Tensor, ...]], hidden: torch.Tensor) -> TokenSums:
    logprobs, ranks, means, deviations, *more = (torch.cat(found).cpu() for found in zip(*parts, strict=True))
    return TokenSums(
        logprobs=logprobs,
        ranks=ranks,
        means=means,
        deviations=deviations,
        divergences=more[0] if more else None,
        hidden=hidden.cpu(),
    )
