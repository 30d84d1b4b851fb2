"""What a bundle's answers should be: transformers with the layers behind its blocks, one prompt at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch

from eul_serve.engine.base import ResidentBundle
from eul_serve.format import Bundle, read_bundle
from eul_serve.format.weights import LayerWeights, load_layers

Answers: TypeAlias = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""Prompts, each with its greedy answer."""
# Gap between the two likeliest tokens below which a reference answer is no use: batches of different shape differ by
# up to 1e-4 in float32.
CLEAR = 1e-2


@contextmanager
def hooked(model: Any, bundle: ResidentBundle | Bundle | None) -> Iterator[Any]:
    """Hold a bundle's layers behind the blocks of a transformers model."""
    layers: dict[str, LayerWeights] = load_layers(read_bundle(bundle.path)) if bundle else {}
    hooks = [
        model.get_submodule(path).register_forward_hook(lambda _module, _args, output, layer=layer: layer.apply(output))
        for path, layer in layers.items()
    ]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def load(model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def greedy(model: Any, prompt: Sequence[int], tokens: int) -> tuple[int, ...] | None:
    """Return the greedy answer; None where it is nearly a tie."""
    ids = torch.tensor([list(prompt)])
    for _ in range(tokens):
        best = model(ids).logits[0, -1].topk(2)
        if best.values[0] - best.values[1] < CLEAR:
            return None
        ids = torch.cat([ids, best.indices[None, :1]], dim=1)
    return tuple(ids[0, len(prompt) :].tolist())


@torch.inference_mode()
def greedy_answers(
    model: Path, bundles: dict[str, ResidentBundle | None], *, tokens: int, lengths: Sequence[int], count: int
) -> dict[str, Answers]:
    """Return random prompts with their answers, by name of the bundle."""
    loaded, generator = load(model), random.Random(3)
    found: dict[str, Answers] = {}
    for name, bundle in bundles.items():
        found[name] = []
        with hooked(loaded, bundle):
            while len(found[name]) < count:
                prompt = tuple(generator.randrange(5, 512) for _ in range(generator.choice(lengths)))
                if (answer := greedy(loaded, prompt, tokens)) is not None:
                    found[name].append((prompt, answer))
    return found
