"""Layers on a model by hooks: any function of a feed-forward module's output, put there and taken away again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from eul_serve.peft.layer import Observer
from eul_trainer.fusion.gated import Stack, units_of
from eul_trainer.model.load import Network

Function = Callable[[torch.Tensor], torch.Tensor]
"""What stands behind a feed-forward module: takes its output y (..., d) and returns another."""


@contextmanager
def attached(network: Network, functions: Mapping[str, Function]) -> Iterator[None]:
    """Have functions behind feed-forward modules while the context lasts.

    Args:
        network: The base model.
        functions: By module path.

    Yields:
        Nothing.
    """
    with ExitStack() as stack:
        for path, function in functions.items():
            handle = network.get_submodule(path).register_forward_hook(_hook(function))
            stack.callback(handle.remove)
        yield


def _hook(function: Function) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
    return lambda module, inputs, output: function(output)


@contextmanager
def watched(network: Network, layers: Mapping[str, Stack], observer: Observer) -> Iterator[None]:
    """Show an observer what layers would compute on the base model, with nothing added to its outputs.

    Args:
        network: The base model.
        layers: By module path.
        observer: Sees input and hidden units; no output is computed.

    Yields:
        Nothing.
    """

    def seen(path: str, layer: Stack) -> Function:
        def look(output: torch.Tensor) -> torch.Tensor:
            y = output.float()
            observer(path, y, units_of(layer, y), torch.empty(0))
            return output

        return look

    with attached(network, {path: seen(path, layer) for path, layer in layers.items()}):
        yield
