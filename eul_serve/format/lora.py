"""A fine-tune beside a bundle: one plain LoRA, in the two files that a composite lists. Needs no torch.

PEFT's config has forty keys, of which most change what the weights mean. Here it has eight, so that every reader (PEFT,
and vLLM from 0.26 on) computes the same: `W x + (alpha / r) B A x`, or alpha / sqrt(r) with `use_rslora`.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eul_serve.errors import BundleFormatError
from eul_serve.format.config import MAX_RANK, TASK_TYPES, check_keys, parse_object
from eul_serve.format.header import Header, TensorEntry, parse_header
from eul_serve.format.names import MAX_TENSOR_NAME, PREFIX
from eul_serve.format.tensors import check_finite

LORA_CONFIG_FILE = "lora_config.json"
LORA_WEIGHTS_FILE = "lora_model.safetensors"
LORA_FILES = (LORA_CONFIG_FILE, LORA_WEIGHTS_FILE)
_TENSOR = re.compile(re.escape(PREFIX) + r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)\.lora_([AB])\.weight")
_FIXED = {"peft_type": "LORA", "bias": "none", "inference_mode": True}
_KEYS: dict[str, type] = {
    "bias": str,
    "inference_mode": bool,
    "lora_alpha": float,
    "peft_type": str,
    "r": int,
    "target_modules": list,
    "task_type": str,
    "use_rslora": bool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """The settings that a fine-tune's weights cannot be read without."""

    rank: int
    """Rank r of every module, 1 to 4096."""
    alpha: float
    """Scale; the product is multiplied by alpha / r, or alpha / sqrt(r)."""
    target_modules: tuple[str, ...]
    """Last parts of the paths of the changed modules, sorted: exactly those of the weights."""
    rank_stabilised: bool = False
    """Whether the scale is alpha / sqrt(r)."""
    task_type: str = "CAUSAL_LM"
    """PEFT's task type: CAUSAL_LM or SEQ_2_SEQ_LM."""

    def __post_init__(self) -> None:
        if type(self.rank) is not int or not 1 <= self.rank <= MAX_RANK:
            raise BundleFormatError(f"{LORA_CONFIG_FILE}: r: expected 1 to {MAX_RANK}, found {self.rank!r:.40}")
        if type(self.alpha) is not float or not math.isfinite(self.alpha) or not self.alpha > 0:
            raise BundleFormatError(f"{LORA_CONFIG_FILE}: lora_alpha: expected more than 0, found {self.alpha!r:.40}")
        if self.task_type not in TASK_TYPES:
            raise BundleFormatError(
                f"{LORA_CONFIG_FILE}: task_type: expected one of {', '.join(TASK_TYPES)}, found {self.task_type!r:.40}"
            )

    def to_bytes(self) -> bytes:
        """Return the bytes of `lora_config.json`, which PEFT and vLLM read as `adapter_config.json`."""
        found = {
            **_FIXED,
            "lora_alpha": self.alpha,
            "r": self.rank,
            "target_modules": list(self.target_modules),
            "task_type": self.task_type,
            "use_rslora": self.rank_stabilised,
        }
        return json.dumps(found, indent=2, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> LoraConfig:
        """Parse `lora_config.json`.

        Args:
            data: The bytes of the file.

        Returns:
            The config.

        Raises:
            BundleFormatError: Not canonical JSON, an unknown or missing key, or a value of the wrong type or range.
        """
        found = parse_object(data, LORA_CONFIG_FILE)
        check_keys(found, _KEYS, LORA_CONFIG_FILE)
        config = cls(
            rank=found["r"],
            alpha=found["lora_alpha"],
            target_modules=tuple(found["target_modules"]),
            rank_stabilised=found["use_rslora"],
            task_type=found["task_type"],
        )
        if config.to_bytes() != data:
            raise BundleFormatError(f"{LORA_CONFIG_FILE}: expected the canonical form of a plain LoRA, found another")
        return config


def check_lora(config: LoraConfig, weights: bytes) -> None:
    """Check a fine-tune's weights against its config: names, shapes, dtypes, finite values.

    Args:
        config: The config.
        weights: The bytes of `lora_model.safetensors`.

    Raises:
        BundleFormatError: Names the first tensor that breaks a rule.
    """
    header = parse_header(io.BytesIO(weights), LORA_WEIGHTS_FILE)
    if header.metadata not in ({}, {"format": "pt"}):
        raise BundleFormatError(f"{LORA_WEIGHTS_FILE}: __metadata__: expected only format=pt")
    modules = lora_modules(header)
    for module, parts in modules.items():
        _check_pair(module, parts, config.rank)
    ends = tuple(sorted({module.rpartition(".")[2] for module in modules}))
    if ends != config.target_modules:
        raise BundleFormatError(
            f"{LORA_CONFIG_FILE}: target_modules: expected those of the weights ({', '.join(ends)}), found "
            f"{', '.join(map(str, config.target_modules))[:200]}"
        )
    check_finite(io.BytesIO(weights), header)


def lora_modules(header: Header) -> dict[str, Mapping[str, TensorEntry]]:
    """Return the changed modules of a fine-tune, each with its A and B, by path in the base model.

    Args:
        header: Header of its weights.

    Returns:
        Tensors by part, by path.

    Raises:
        BundleFormatError: A tensor is no part of a plain LoRA, or there is none.
    """
    found: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in header.tensors.items():
        match = _TENSOR.fullmatch(name) if len(name) <= MAX_TENSOR_NAME else None
        if match is None:
            raise BundleFormatError(
                f"{LORA_WEIGHTS_FILE}: tensor {name[:200]!r}: expected '{PREFIX}<module>.lora_A.weight' or lora_B; "
                "a composite carries a plain LoRA, with no embeddings, biases or whole modules"
            )
        found.setdefault(match[1], {})[match[2]] = entry
    if not found:
        raise BundleFormatError(f"{LORA_WEIGHTS_FILE}: expected at least one module, found none")
    return dict(sorted(found.items()))


def _check_pair(module: str, parts: Mapping[str, Any], rank: int) -> None:
    shapes = {part: parts[part].shape if part in parts else None for part in "AB"}
    inner = [
        shape[axis] if shape is not None and len(shape) == 2 else None
        for shape, axis in ((shapes["A"], 0), (shapes["B"], 1))
    ]
    if inner != [rank, rank]:
        raise BundleFormatError(
            f"{LORA_WEIGHTS_FILE}: module {module!r}: expected A of ({rank}, in) and B of (out, {rank}), found "
            f"{shapes['A']} and {shapes['B']}"
        )
