"""What a model's blocks are made of, in words, where bundles cannot stand behind them."""

from __future__ import annotations

import torch


def describe_blocks(model: torch.nn.Module) -> str:
    """Say why a model cannot be served with unlearning layers.

    Args:
        model: A model in which no feed-forward module was found.

    Returns:
        What was expected and what its first block has.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) and len(list(module[0].children())) > 1:
            parts = ", ".join(name for name, _ in module[0].named_children())
            return (
                "expected blocks with one module whose output is the feed-forward output (mlp, feed_forward or ffn), "
                f"found {type(module[0]).__name__} with {parts}; this model cannot be served with unlearning layers"
            )
    return "expected a decoder made of blocks, found none; this model cannot be served with unlearning layers"
