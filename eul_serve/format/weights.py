"""A bundle's weights as torch tensors, and what they mean. The only file of this room that needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from torch.nn import functional

from eul_serve.errors import BundleFormatError
from eul_serve.format.bundle import WEIGHTS_FILE, Bundle
from eul_serve.format.digest import digest_bytes
from eul_serve.format.names import TensorName

ACTIVATION_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The unlearning layer of one block: `y + U act(D y + b)`."""

    down: torch.Tensor  # (r, d)
    up: torch.Tensor  # (d, r)
    bias: torch.Tensor | None  # (r,)
    activation: str = "relu"

    def apply(self, output: torch.Tensor) -> torch.Tensor:
        """Return the reference result of the layer.

        Args:
            output: Output y of the feed-forward network, (..., d).

        Returns:
            `y + U act(D y + b)`, (..., d), in the dtype of `output`.
        """
        hidden = functional.linear(output, self.down, self.bias)
        return output + functional.linear(ACTIVATION_FUNCTIONS[self.activation](hidden), self.up)


def load_layers(bundle: Bundle) -> dict[str, LayerWeights]:
    """Load a bundle's layers, by the path of their module.

    The bytes are read once, hashed, and only then parsed, so that what was checked is what is used.

    Raises:
        BundleFormatError: The weights changed since the bundle was read.
    """
    data = bundle.weights.read_bytes()
    expected = bundle.manifest.files[WEIGHTS_FILE].sha256
    if (found := digest_bytes(data)) != expected:
        raise BundleFormatError(f"file {WEIGHTS_FILE!r}: expected {expected}, found {found}; the file was changed")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for text, tensor in safetensors.torch.load(data).items():
        name = TensorName.parse(text)
        parts.setdefault(name.module, {})[name.part] = tensor
    return {
        module: LayerWeights(
            found_parts["eul_down.weight"],
            found_parts["eul_up.weight"],
            found_parts.get("eul_down.bias"),
            bundle.config.activation,
        )
        for module, found_parts in sorted(parts.items())
    }


def dump_layers(layers: Mapping[str, LayerWeights]) -> bytes:
    """Return the bytes of `adapter_model.safetensors`, equal to those that PEFT's `save_pretrained` writes."""
    tensors: dict[str, torch.Tensor] = {}
    for module, layer in layers.items():
        tensors[str(TensorName(module, "eul_down.weight"))] = layer.down.detach().cpu().contiguous()
        tensors[str(TensorName(module, "eul_up.weight"))] = layer.up.detach().cpu().contiguous()
        if layer.bias is not None:
            tensors[str(TensorName(module, "eul_down.bias"))] = layer.bias.detach().cpu().contiguous()
    return safetensors.torch.save(tensors, metadata={"format": "pt"})
