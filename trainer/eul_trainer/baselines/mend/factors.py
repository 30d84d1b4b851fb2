"""A weight's gradient as what it is a product of, and a change of weights as such a product on the way forward.

The gradient of a linear map `y = W x` is `sum over tokens of delta u'`, with u the map's input and delta the gradient
of its output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from eul_serve.errors import InputError
from eul_serve.peft import ffn_modules
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import Network
from eul_trainer.objectives.terms import cross_entropy


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """The factors of one weight's gradient, or of its change. t is the number of tokens."""

    inputs: torch.Tensor  # (t, d_in)
    deltas: torch.Tensor  # (t, d_out)


def edited_maps(network: Network, blocks: int) -> list[str]:
    """Return the paths of the linear maps in the feed-forward modules of the last blocks.

    Args:
        network: The network.
        blocks: Number of blocks.

    Returns:
        The paths.

    Raises:
        InputError: The modules hold no linear map.
    """
    modules = dict(network.named_modules())
    ends = tuple(ffn_modules(network))
    found = [
        path
        for module in [path for path in modules if path.rpartition(".")[2] in ends][-blocks:]
        for path in modules
        if path.startswith(f"{module}.") and isinstance(modules[path], torch.nn.Linear | Conv1D)
    ]
    if not found:
        raise InputError(f"model: expected linear maps in its last {blocks} feed-forward modules, found none")
    return found


def gradient_factors(runner: Runner, examples: Sequence[Example], paths: Sequence[str]) -> dict[str, Factors]:
    """Return the gradient of some rows' losses, summed over rows, by its factors.

    A row's loss is the mean over its answer's tokens, so that a row's factors do not depend on the rows beside it.

    Args:
        runner: The model.
        examples: The rows.
        paths: The linear maps.

    Returns:
        The factors by path.
    """
    inputs: dict[str, torch.Tensor] = {}
    probes: dict[str, torch.Tensor] = {}

    def probe(path: str, given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        inputs[path] = given.detach()
        probes[path] = torch.zeros_like(output, requires_grad=True)  # weights are frozen, so outputs have no gradient
        return output + probes[path]

    with torch.enable_grad(), _hooked(runner.network, {path: probe for path in paths}):
        batch = runner.batch(examples)
        losses = cross_entropy(runner.logits(runner.hidden(batch)), batch.targets)
        lengths = torch.tensor([len(example.answer) for example in examples], device=losses.device)
        total = (losses / lengths[batch.rows]).sum()
        deltas = torch.autograd.grad(total, [probes[path] for path in paths])
    return {
        path: Factors(inputs=inputs[path].flatten(0, -2), deltas=delta.flatten(0, -2))
        for path, delta in zip(paths, deltas, strict=True)
    }


@contextmanager
def edited(network: Network, changes: Mapping[str, Factors]) -> Iterator[None]:
    """Have `W - sum of delta u'` in the place of each W while the context lasts, differentiable in the factors.

    Args:
        network: The network.
        changes: Factors of each weight's change, the step size within the deltas.

    Yields:
        Nothing.
    """

    def change(path: str, given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        factors = changes[path]
        return output - (given @ factors.inputs.T) @ factors.deltas

    with _hooked(network, {path: change for path in changes}):
        yield


@torch.no_grad()
def apply(network: Network, changes: Mapping[str, Factors]) -> None:
    """Put `W - sum of delta u'` in the place of each W for good."""
    for path, factors in changes.items():
        module = network.get_submodule(path)
        change = factors.deltas.T @ factors.inputs
        module.weight.sub_(change.T if isinstance(module, Conv1D) else change)


@contextmanager
def _hooked(network: Network, functions: Mapping[str, Any]) -> Iterator[None]:
    handles = [
        network.get_submodule(path).register_forward_hook(
            lambda _, given, output, path=path: functions[path](path, given[0], output)
        )
        for path in functions
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
