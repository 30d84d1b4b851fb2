"""What a policy must grant by name, because it reads through an unlearning layer."""

from __future__ import annotations

from typing import Literal, get_args

Right = Literal[
    "allowed_tokens",
    "beams",
    "constrained",
    "echo",
    "logit_bias",
    "logprobs",
    "prompt_logprobs",
    "samples",
]
RIGHTS: tuple[Right, ...] = get_args(Right)
"""Every right; a tenant has those that its policy names, and no other."""
