"""A base model, loaded and frozen, with what training needs to know of its layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from eul_serve.errors import InputError
from eul_serve.format import BaseModel, read_base
from eul_serve.format.fingerprint import read_model_config
from eul_serve.peft import ffn_modules

Network: TypeAlias = Any
"""A transformers or PEFT model: neither library has types, and their classes share no more than torch's own."""
Tokenizer: TypeAlias = Any
"""A transformers tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A frozen base model and its tokenizer."""

    path: Path
    """The local directory."""
    network: Network
    """The transformers model, in evaluation mode, float32."""
    tokenizer: Tokenizer
    """Its tokenizer."""
    base: BaseModel
    """Fingerprint and digests, for the manifest."""
    targets: tuple[str, ...]
    """Last parts of the paths of the feed-forward modules."""

    @property
    def encoder_decoder(self) -> bool:
        """Whether the model reads the prompt with an encoder, as T5 does."""
        return bool(self.network.config.is_encoder_decoder)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.network.device
        return device


def load_model(name: str, device: str = "cpu") -> LoadedModel:
    """Load a base model, frozen, in float32.

    Args:
        name: A Hugging Face directory, or a name on the hub.
        device: Where to compute, as torch names it.

    Returns:
        The model.

    Raises:
        InputError: Not a model, no such device, or a model without a separate feed-forward module.
    """
    path = resolve(name)
    base = read_base(path)
    tokenizer, network = _read(path, read_model_config(path))
    try:
        network = network.to(torch.device(device)).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r}: expected cpu, cuda or cuda:N, as far as present: {_first(error)}"
        ) from error
    check_finite(network, path)
    targets = tuple(ffn_modules(network))
    return LoadedModel(path=path, network=network, tokenizer=tokenizer, base=base, targets=targets)


def check_finite(network: Network, path: Path) -> None:
    """Refuse weights that are no numbers: they would end a run hours later, or pass for forgetting.

    Args:
        network: The model.
        path: Its directory, for the message.

    Raises:
        InputError: A tensor has a NaN or an infinity; the message names it.
    """
    for name, tensor in network.state_dict().items():
        # The extremes of a tensor with a NaN are NaN, and no mask of the tensor's size is made.
        if tensor.is_floating_point() and not all(bound.isfinite() for bound in torch.aminmax(tensor)):
            raise InputError(
                f"model {str(path)!r}: tensor {name!r}: expected finite numbers, found NaN or infinity; "
                "take an undamaged copy"
            )


def checksum(network: Network) -> float:
    """Return a number that tells other weights, the same on every machine of a kind."""
    return sum(float(parameter.double().square().sum()) for parameter in network.parameters())


def resolve(name: str) -> Path:
    """Return the local directory of a model, bringing it from the hub where the name is no path."""
    path = Path(name)
    if path.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
        read_model_config(path)
        return path
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:
        raise InputError(
            f"model {name!r}: neither a local directory nor a model that the hub gives: {_first(error)}; "
            "make one with: eul-train base --out DIR"
        ) from error


def _read(path: Path, config: dict[str, Any]) -> tuple[Network, Tokenizer]:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    kind = AutoModelForSeq2SeqLM if config.get("is_encoder_decoder") else AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        network = kind.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"model {str(path)!r}: transformers cannot load it: {_first(error)}") from error
    return tokenizer, network


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
