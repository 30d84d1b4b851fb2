"""The vLLM layer that stands in for a block's feed-forward module and adds the unlearning layers to its output."""

from __future__ import annotations

import weakref

import torch

from eul_serve.engine.compat import BaseLayerWithLoRA
from eul_serve.engine.slots import Slots
from eul_serve.engine.step import Step
from eul_serve.errors import EngineError
from eul_serve.format.weights import LayerWeights

_LAYERS: weakref.WeakValueDictionary[str, UnlearningLayer] = weakref.WeakValueDictionary()
"""The layers of the newest model in this process, by path; compiled graphs find them by name."""


class UnlearningLayer(BaseLayerWithLoRA):  # type: ignore[misc]  # vLLM is not typed
    """`y + U act(D y + b)` behind a feed-forward module, with the weights of each row's own bundle."""

    def __init__(self, path: str, base_layer: torch.nn.Module, slots: Slots, step: Step) -> None:
        """Wrap a module.

        Args:
            path: Path of the module in the model.
            base_layer: The module; its output must be one tensor (..., d).
            slots: The weights.
            step: The rows of the running batch, shared by all layers.
        """
        super().__init__()
        self.path, self.base_layer, self.slots, self.step = path, base_layer, slots, step
        _LAYERS[path] = self

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        """Return the module's output with the layers added, (..., d)."""
        output = self.base_layer(*args, **kwargs)
        if not isinstance(output, torch.Tensor):
            raise EngineError(f"module {self.path!r}: expected one tensor, found {type(output).__name__}")
        if torch.compiler.is_compiling():
            torch.ops.eul_serve.unlearn(output, self.path)
        else:
            self.add_layers(output)
        return output

    def add_layers(self, output: torch.Tensor, step: Step | None = None) -> None:
        """Add the layers in place.

        Args:
            output: Output y of the module, (..., d).
            step: The rows to use instead of the running batch's.
        """
        step = step or self.step
        if not step.runs:
            return  # no bundle in the batch
        flat = output if output.dim() == 2 else output.view(-1, output.shape[-1])
        for run in step.runs:
            run(flat, self.slots)

    def set_lora(self, index: int, lora_a: LayerWeights, lora_b: None = None) -> None:
        """Take up a bundle's layer; the argument names are vLLM's."""
        del lora_b
        self.slots.put(index, lora_a)

    def reset_lora(self, index: int) -> None:
        """Empty a slot."""
        self.slots.clear(index)


def _unlearn(output: torch.Tensor, path: str) -> None:
    _LAYERS[path].add_layers(output)


def _unlearn_shape(output: torch.Tensor, path: str) -> None:
    """Tell the compiler that nothing changes but the values."""


# An operator of its own keeps the compiler out: which slots a batch uses is not part of a graph.
_LIBRARY = torch.library.Library("eul_serve", "FRAGMENT")  # type: ignore[no-untyped-call]
if not hasattr(torch.ops.eul_serve, "unlearn"):
    _LIBRARY.define("unlearn(Tensor(a!) output, str path) -> ()")  # type: ignore[no-untyped-call]
    _LIBRARY.impl("unlearn", _unlearn, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake("eul_serve::unlearn", _unlearn_shape, lib=_LIBRARY)
