"""A tenant's fine-tune: a LoRA that PEFT wrote, taken down to what every reader computes in the same way."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError
from eul_serve.format.bundle import CONFIG_FILE, WEIGHTS_FILE
from eul_serve.format.config import parse_object
from eul_serve.format.digest import reading
from eul_serve.format.files import read_text
from eul_serve.format.header import parse_header
from eul_serve.format.lora import LoraConfig, check_lora, lora_modules
from eul_serve.format.names import PREFIX
from eul_trainer.model.load import Network

_IGNORED = frozenset({
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size",
    "revision", "runtime_config", "target_modules",
})  # fmt: skip
"""PEFT's keys that say nothing of what trained weights mean."""
_TAKEN = frozenset({"peft_type", "r", "lora_alpha", "use_rslora", "task_type", "bias"})
_HARMLESS_INIT = ("gaussian", "eva", "orthogonal")
"""How weights began, where the base model was left as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """A plain LoRA."""

    config: LoraConfig
    """Its settings."""
    weights: bytes
    """Its tensors, as a composite holds them."""

    def find(self, network: Network) -> dict[str, nn.Linear]:
        """Return the modules that the fine-tune changes, by path.

        Args:
            network: The transformers model, before anything wraps its modules.

        Returns:
            Its modules.

        Raises:
            BundleMismatchError: The model has no such linear module, or one of another shape.
        """
        header = parse_header(io.BytesIO(self.weights), WEIGHTS_FILE)
        return {
            module: _find_linear(network, module, (parts["B"].shape[0], parts["A"].shape[1]))
            for module, parts in lora_modules(header).items()
        }

    def add_to(self, modules: Mapping[str, nn.Linear]) -> None:
        """Add the fine-tune to the weights of modules, in place: `W + scale B A`, computed in float32.

        Args:
            modules: What `find` returned.
        """
        tensors = safetensors.torch.load(self.weights)
        scale = self.config.alpha / (self.config.rank**0.5 if self.config.rank_stabilised else self.config.rank)
        with torch.no_grad():
            for module, linear in modules.items():
                down, up = (tensors[f"{PREFIX}{module}.lora_{part}.weight"].to(linear.weight.device) for part in "AB")
                linear.weight += (scale * (up.float() @ down.float())).to(linear.weight.dtype)


def read_peft_lora(path: Path) -> FineTune:
    """Read a LoRA as PEFT's `save_pretrained` writes it.

    Args:
        path: Its directory.

    Returns:
        The fine-tune, checked.

    Raises:
        InputError: It is no LoRA of PEFT, or more than a plain one.
        BundleFormatError: Its weights break the format.
    """
    found = parse_object(read_text(path / CONFIG_FILE), CONFIG_FILE)
    if found.get("peft_type") != "LORA":
        raise InputError(f"adapter {str(path)!r}: peft_type: expected 'LORA', found {found.get('peft_type')!r:.40}")
    _check_plain(path, found)
    try:
        with reading(path / WEIGHTS_FILE) as file:
            tensors = safetensors.torch.load(file.read())
    except safetensors.SafetensorError as error:
        raise BundleFormatError(f"adapter {str(path)!r}: {WEIGHTS_FILE}: {error}") from error
    weights = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"}
    )
    modules = lora_modules(parse_header(io.BytesIO(weights), WEIGHTS_FILE))
    config = LoraConfig(
        rank=found.get("r"),  # type: ignore[arg-type]  # checked there
        alpha=_number(found.get("lora_alpha")),
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in modules})),
        rank_stabilised=found.get("use_rslora") is True,
        task_type=found.get("task_type") or "CAUSAL_LM",
    )
    check_lora(config, weights)
    return FineTune(config=config, weights=weights)


def _check_plain(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse whatever would make the weights mean something else than `W + scale B A`."""
    for key in sorted(config.keys() - _IGNORED - _TAKEN):
        if config[key]:
            raise InputError(
                f"adapter {str(path)!r}: {key}: expected none in a plain LoRA, found {config[key]!r:.60}; train one "
                "without it"
            )
    if config.get("bias", "none") != "none":
        raise InputError(f"adapter {str(path)!r}: bias: expected 'none', found {config['bias']!r:.40}")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init not in _HARMLESS_INIT:
        raise InputError(
            f"adapter {str(path)!r}: init_lora_weights {init!r:.40}: it changed the base model too; save it as a plain "
            "LoRA first (path_initial_model_for_weight_conversion in PEFT)"
        )


def _number(found: object) -> float:
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else float("nan")


def _find_linear(network: Network, module: str, shape: tuple[int, int]) -> nn.Linear:
    try:
        found = network.get_submodule(module)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Linear) or found.weight.shape != shape:
        kind = "no such module" if found is None else f"{type(found).__name__} {_shape(found)}"
        raise BundleMismatchError(
            f"adapter: module {module!r}: expected a linear module of shape {shape} in the base model, found {kind}; "
            "name the adapter's own base model"
        )
    return found


def _shape(module: nn.Module) -> str:
    weight = getattr(module, "weight", None)
    return str(tuple(weight.shape)) if isinstance(weight, torch.Tensor) else "without weights"
