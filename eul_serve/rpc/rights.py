"""The rights that a request needs: what in it could read through a layer."""

from __future__ import annotations

from eul_serve.engine.base import Sampling
from eul_serve.policy import Right


def needed_rights(sampling: Sampling, *, echo: bool = False) -> frozenset[Right]:
    """Return the rights that a request needs.

    Args:
        sampling: How its tokens are chosen, and what is told of them.
        echo: Whether the prompt's tokens are returned.

    Returns:
        Rights that the tenant must have, all of them.
    """
    asked: dict[Right, bool] = {
        "allowed_tokens": bool(sampling.allowed_tokens),
        "beams": sampling.beams > 0,
        "constrained": sampling.constraint is not None,
        "echo": echo,
        "logit_bias": bool(sampling.logit_bias),
        "logprobs": sampling.logprobs,
        "prompt_logprobs": sampling.prompt_logprobs,
        "samples": sampling.samples > 1,
    }
    return frozenset(right for right, is_asked in asked.items() if is_asked)
