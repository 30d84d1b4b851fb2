"""A bundle's weights as torch tensors, and what they mean. The only file of this room that needs torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from torch.nn import functional

from eul_serve.errors import BundleFormatError
from eul_serve.format.bundle import WEIGHTS_FILE, Bundle
from eul_serve.format.files import read_large
from eul_serve.format.header import parse_header
from eul_serve.format.names import TensorName
from eul_serve.format.tensors import check_finite, check_tensors

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
            `y + U act(D y + b)`, (..., d), computed in float32 and rounded once to the dtype of `output`.
        """
        # float32 at least, as PEFT's layer, whatever the dtype of the files or of the base model.
        wide = torch.promote_types(torch.promote_types(output.dtype, self.down.dtype), torch.float32)
        bias = None if self.bias is None else self.bias.to(wide)
        hidden = functional.linear(output.to(wide), self.down.to(wide), bias)
        delta = functional.linear(ACTIVATION_FUNCTIONS[self.activation](hidden), self.up.to(wide))
        return (output + delta).to(output.dtype)


def load_layers(bundle: Bundle) -> dict[str, LayerWeights]:
    """Load a bundle's layers, by the path of their module.

    The bytes are read once, without following links, and hashed and checked again: what was checked is what is used.

    Args:
        bundle: A bundle that was read.

    Returns:
        Weights by path of the wrapped module, in the dtype of the file.

    Raises:
        InputError: The weights are missing, a link, or cannot be read.
        BundleFormatError: The weights changed since the bundle was read.
    """
    data = read_large(bundle.path, WEIGHTS_FILE, bundle.manifest.files[WEIGHTS_FILE])
    header = parse_header(io.BytesIO(data), WEIGHTS_FILE)
    check_tensors(header, bundle.config)
    check_finite(io.BytesIO(data), header)
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise BundleFormatError(f"file {WEIGHTS_FILE!r}: {error}") from error
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for text, tensor in tensors.items():
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
    data: bytes = safetensors.torch.save(tensors, metadata={"format": "pt"})
    return data
