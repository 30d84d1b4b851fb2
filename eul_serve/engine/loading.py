"""How a worker reads a bundle: from an absolute path, following no links, hashing the bytes on every load."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import torch

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format import Bundle, read_bundle
from eul_serve.format.bundle import CONFIG_FILE
from eul_serve.format.config import PEFT_TYPE
from eul_serve.format.weights import LayerWeights, load_layers


def is_bundle(path: Path) -> bool:
    """Return whether a directory says that it is a bundle of ours; it is not yet believed."""
    try:
        config = json.loads((path / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("peft_type") == PEFT_TYPE


def check_path(path: Path, root: Path | None) -> None:
    """Check where a bundle lies.

    Args:
        path: Directory of the bundle.
        root: Directory that it must lie in; None allows any.

    Raises:
        InputError: The path is relative, goes through a link, or lies outside the root.
    """
    if not path.is_absolute():
        raise InputError(f"bundle path {str(path)!r}: expected an absolute path; use {str(path.absolute())!r}")
    if root is not None and not path.is_relative_to(root):
        raise InputError(f"bundle path {str(path)!r}: expected a directory in the verified cache {str(root)!r}")
    # Where the operator put the cache may be a link; nothing below it may.
    expected = path if root is None else Path(os.path.realpath(root)) / path.relative_to(root)
    real = Path(os.path.realpath(path))
    if real != expected:
        raise InputError(f"bundle path {str(path)!r}: expected a path without links; it leads to {str(real)!r}")


def read_layers(path: Path, root: Path | None, fingerprint: str) -> tuple[Bundle, dict[str, LayerWeights]]:
    """Read and check a bundle.

    Args:
        path: Directory of the bundle.
        root: Directory that it must lie in; None allows any.
        fingerprint: Fingerprint of the served base model.

    Returns:
        The bundle, and its layers by path of the module in the Hugging Face model.

    Raises:
        InputError: The path is not acceptable.
        BundleFormatError: The files break the format.
        BundleMismatchError: The bundle was made for another base model.
    """
    check_path(path, root)
    bundle = read_bundle(path, fingerprint, weights=False)
    return bundle, load_layers(bundle)


def cast_layer(layer: LayerWeights, dtype: torch.dtype, module: str, *, pinned: bool = False) -> LayerWeights:
    """Return a layer in the engine's dtype.

    Args:
        layer: The layer as its file has it.
        dtype: dtype of the engine.
        module: Path of its module, for the error's text.
        pinned: Whether to keep it in memory that a device can read by itself.

    Returns:
        A new layer; the old one is left as it is.

    Raises:
        BundleFormatError: A value does not fit the dtype.
    """

    def take(part: torch.Tensor) -> torch.Tensor:
        fitted = part.to(dtype)
        if fitted is not part and not torch.isfinite(fitted).all():  # the file's own values were found finite before
            raise BundleFormatError(f"module {module!r}: expected values that fit {dtype}, found larger ones")
        return fitted.pin_memory() if pinned else fitted

    bias = None if layer.bias is None else take(layer.bias)
    return replace(layer, down=take(layer.down), up=take(layer.up), bias=bias)
