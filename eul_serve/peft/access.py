"""What the trainer asks of a model: which modules to wrap, the layers, and what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from eul_serve.errors import InputError
from eul_serve.format.weights import LayerWeights
from eul_serve.peft.layer import EulLayer, Observer

FFN_MODULES: dict[str, list[str]] = {
    "gemma": ["mlp"],
    "gpt2": ["mlp"],
    "llama": ["mlp"],
    "mistral": ["mlp"],
    "qwen2": ["mlp"],
    "qwen3": ["mlp"],
    "t5": ["DenseReluDense"],
}
"""Last part of the feed-forward modules' paths, by `model_type` of the config."""


def ffn_modules(model: nn.Module) -> list[str]:
    """Return the target modules for a model.

    Args:
        model: A transformers model.

    Returns:
        Last parts of the paths of its feed-forward modules.

    Raises:
        InputError: The type of model is not supported.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in FFN_MODULES:
        raise InputError(
            f"model type {kind!r}: no known feed-forward module; supported are {', '.join(FFN_MODULES)}; "
            "for another model whose feed-forward module returns one tensor, set target_modules"
        )
    return list(FFN_MODULES[kind])


def eul_layers(model: nn.Module) -> dict[str, EulLayer]:
    """Return the wrapped modules of a PEFT model, by their path in the base model."""
    return {module.module_path: module for module in model.modules() if isinstance(module, EulLayer)}


def layers_of(model: nn.Module, adapter_name: str = "default") -> dict[str, LayerWeights]:
    """Return an adapter's weights by module path, ready for `dump_layers`.

    Args:
        model: A PEFT model.
        adapter_name: Name of the adapter.

    Returns:
        Weights by the module's path in the base model; they share memory with the parameters.

    Raises:
        InputError: The model has no such adapter.
    """
    layers = {path: layer for path, layer in eul_layers(model).items() if adapter_name in layer.eul_down}
    if not layers:
        raise InputError(f"adapter {adapter_name!r}: the model has no unlearning layer of that name")
    return {path: layer.weights(adapter_name) for path, layer in layers.items()}


@contextmanager
def observe(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Call an observer for every layer's tensors while the context lasts; disabled adapters are not seen.

    Args:
        model: A PEFT model.
        observer: Called once per layer, forward pass and active adapter.

    Yields:
        Nothing.

    Raises:
        InputError: Another observer is in place.
    """
    layers = eul_layers(model).values()
    if any(layer.observer is not None for layer in layers):
        raise InputError("observe: another observer is in place; leave its context first")
    for layer in layers:
        layer.observer = observer
    try:
        yield
    finally:
        for layer in layers:
            layer.observer = None
