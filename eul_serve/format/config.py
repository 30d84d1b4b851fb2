"""`adapter_config.json`: what a bundle is, in the keys that PEFT reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.names import check_digest

FORMAT_VERSION = 1
PEFT_TYPE = "EUL"
TASK_TYPES = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
ACTIVATIONS = ("relu", "gelu", "silu")
MAX_RANK = 4096

_KEYS: dict[str, type] = {
    "activation": str,
    "base_fingerprint": str,
    "base_model_name_or_path": str,
    "bias": str,
    "format_version": int,
    "hidden_bias": bool,
    "inference_mode": bool,
    "peft_type": str,
    "r": int,
    "target_modules": list,
    "task_type": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleConfig:
    """The settings that a bundle's weights cannot be read without."""

    rank: int
    """Hidden units per layer, 1 to 4096; the sum of the requests' ranks for a concatenated bundle."""
    base_fingerprint: str
    """Fingerprint of the base model, `sha256:<hex>`."""
    target_modules: tuple[str, ...] = ("mlp",)
    """Last parts of the paths of the wrapped modules."""
    activation: str = "relu"
    """Activation between the projections: relu, gelu or silu."""
    hidden_bias: bool = True
    """Whether each layer has a bias before the activation."""
    task_type: str = "CAUSAL_LM"
    """PEFT's task type: CAUSAL_LM or SEQ_2_SEQ_LM."""

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_RANK:
            raise BundleFormatError(f"rank r: expected 1 to {MAX_RANK}, found {self.rank}")
        if self.activation not in ACTIVATIONS:
            raise BundleFormatError(f"activation: expected one of {', '.join(ACTIVATIONS)}, found {self.activation!r}")
        if self.task_type not in TASK_TYPES:
            raise BundleFormatError(f"task_type: expected one of {', '.join(TASK_TYPES)}, found {self.task_type!r}")
        if not self.target_modules or not all(isinstance(name, str) and name for name in self.target_modules):
            raise BundleFormatError(f"target_modules: expected module names, found {self.target_modules!r}")
        try:
            check_digest(self.base_fingerprint)
        except InputError as error:
            raise BundleFormatError(f"base_fingerprint: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the keys of `adapter_config.json`; `base_model_name_or_path` is blank, as paths are not published."""
        return {
            "activation": self.activation,
            "base_fingerprint": self.base_fingerprint,
            "base_model_name_or_path": "",
            "bias": "none",
            "format_version": FORMAT_VERSION,
            "hidden_bias": self.hidden_bias,
            "inference_mode": True,
            "peft_type": PEFT_TYPE,
            "r": self.rank,
            "target_modules": sorted(self.target_modules),
            "task_type": self.task_type,
        }

    def to_bytes(self) -> bytes:
        """Return the bytes of `adapter_config.json`, equal to those that PEFT's `save_pretrained` writes."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> BundleConfig:
        """Parse `adapter_config.json`.

        Raises:
            BundleFormatError: Not JSON, an unknown or missing key, or a value of the wrong type or range.
        """
        found = parse_object(data, "adapter_config.json")
        check_keys(found, _KEYS, "adapter_config.json")
        for key, expected in (("peft_type", PEFT_TYPE), ("format_version", FORMAT_VERSION), ("bias", "none")):
            if found[key] != expected:
                raise BundleFormatError(f"adapter_config.json: {key}: expected {expected!r}, found {found[key]!r}")
        return cls(
            rank=found["r"],
            base_fingerprint=found["base_fingerprint"],
            target_modules=tuple(found["target_modules"]),
            activation=found["activation"],
            hidden_bias=found["hidden_bias"],
            task_type=found["task_type"],
        )


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object, refusing repeated keys and numbers that JSON does not have.

    Args:
        data: The bytes of the file.
        where: The file's name, for messages.

    Returns:
        The object.

    Raises:
        BundleFormatError: Not UTF-8, not JSON, not an object, or a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key occurs twice")
        return found

    def refuse(constant: str) -> Any:
        raise ValueError(f"the number {constant} is not JSON")

    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"{where}: expected JSON, found {error}") from error
    if not isinstance(found, dict):
        raise BundleFormatError(f"{where}: expected a JSON object, found {type(found).__name__}")
    return found


def check_keys(found: dict[str, Any], expected: dict[str, type], where: str) -> None:
    """Check that an object has exactly the expected keys, each with a value of its type.

    Raises:
        BundleFormatError: A key is missing or unknown, or a value has another type.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise BundleFormatError(f"{where}: missing key {missing[0]!r}")
    if unknown := sorted(found.keys() - expected.keys()):
        raise BundleFormatError(f"{where}: unknown key {unknown[0]!r}; allowed are {', '.join(sorted(expected))}")
    for key, kind in expected.items():
        value = found[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BundleFormatError(f"{where}: {key}: expected {kind.__name__}, found {type(value).__name__}")
