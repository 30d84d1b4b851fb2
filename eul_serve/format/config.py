"""`adapter_config.json`: what a bundle is, in the keys that PEFT reads."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.names import check_digest

FORMAT_VERSION = 1
PEFT_TYPE = "EUL"
TASK_TYPES = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
ACTIVATIONS = ("relu", "gelu", "silu")
MAX_RANK = 4096
MAX_TARGETS = 64
MAX_JSON_DEPTH = 32

_TARGET = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
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
_FIXED = {
    "peft_type": PEFT_TYPE,
    "format_version": FORMAT_VERSION,
    "bias": "none",
    "base_model_name_or_path": "",
    "inference_mode": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleConfig:
    """The settings that a bundle's weights cannot be read without."""

    rank: int
    """Hidden units per layer, 1 to 4096; the sum of the requests' ranks for a concatenated bundle."""
    base_fingerprint: str
    """Fingerprint of the base model, `sha256:<hex>`."""
    target_modules: tuple[str, ...] = ("mlp",)
    """Last parts of the paths of the wrapped modules, sorted."""
    activation: str = "relu"
    """Activation between the projections: relu, gelu or silu."""
    hidden_bias: bool = True
    """Whether each layer has a bias before the activation."""
    task_type: str = "CAUSAL_LM"
    """PEFT's task type: CAUSAL_LM or SEQ_2_SEQ_LM."""

    def __post_init__(self) -> None:
        if type(self.rank) is not int or not 1 <= self.rank <= MAX_RANK:
            raise BundleFormatError(f"rank r: expected 1 to {MAX_RANK}, found {self.rank!r:.40}")
        if type(self.hidden_bias) is not bool:
            raise BundleFormatError(f"hidden_bias: expected true or false, found {self.hidden_bias!r:.40}")
        for field, allowed in (("activation", ACTIVATIONS), ("task_type", TASK_TYPES)):
            if getattr(self, field) not in allowed:
                raise BundleFormatError(
                    f"{field}: expected one of {', '.join(allowed)}, found {getattr(self, field)!r:.40}"
                )
        object.__setattr__(self, "target_modules", _check_targets(self.target_modules))
        try:
            check_digest(self.base_fingerprint)
        except InputError as error:
            raise BundleFormatError(f"base_fingerprint: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the keys of `adapter_config.json`; `base_model_name_or_path` is blank, as paths are not published."""
        return {
            **_FIXED,
            "activation": self.activation,
            "base_fingerprint": self.base_fingerprint,
            "hidden_bias": self.hidden_bias,
            "r": self.rank,
            "target_modules": list(self.target_modules),
            "task_type": self.task_type,
        }

    def to_bytes(self) -> bytes:
        """Return the bytes of `adapter_config.json`, equal to those that PEFT's `save_pretrained` writes."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> BundleConfig:
        """Parse `adapter_config.json`.

        Args:
            data: The bytes of the file.

        Returns:
            The config.

        Raises:
            BundleFormatError: Not canonical JSON, an unknown or missing key, or a value of the wrong type or range.
        """
        found = parse_object(data, "adapter_config.json")
        check_keys(found, _KEYS, "adapter_config.json")
        for key, expected in _FIXED.items():
            if found[key] != expected:
                raise BundleFormatError(f"adapter_config.json: {key}: expected {expected!r}, found {found[key]!r:.100}")
        config = cls(
            rank=found["r"],
            base_fingerprint=found["base_fingerprint"],
            target_modules=tuple(found["target_modules"]),
            activation=found["activation"],
            hidden_bias=found["hidden_bias"],
            task_type=found["task_type"],
        )
        if config.to_bytes() != data:
            raise BundleFormatError(
                "adapter_config.json: expected canonical JSON (sorted keys and targets, indent 2), found another form"
            )
        return config


def _check_targets(targets: tuple[str, ...]) -> tuple[str, ...]:
    if not 1 <= len(targets) <= MAX_TARGETS:
        raise BundleFormatError(f"target_modules: expected 1 to {MAX_TARGETS} module names, found {len(targets)}")
    for target in targets:
        if not isinstance(target, str) or len(target) > 200 or not _TARGET.fullmatch(target):
            raise BundleFormatError(f"target_modules: expected module names such as 'mlp', found {target!r:.100}")
    if len(set(targets)) != len(targets):
        raise BundleFormatError(f"target_modules: a name occurs twice in {', '.join(sorted(targets))}")
    return tuple(sorted(targets))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object, refusing repeated keys, numbers that JSON does not have, and deep nesting.

    Args:
        data: The bytes of the file.
        where: The file's name, for messages.

    Returns:
        The object.

    Raises:
        BundleFormatError: Not UTF-8, not JSON, not an object, a key twice, a number out of range, or nested too deep.
    """
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"{where}: expected JSON, found {error}") from error
    if not isinstance(found, dict):
        raise BundleFormatError(f"{where}: expected a JSON object, found {type(found).__name__}")
    level: list[Any] = [found]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return found
    raise BundleFormatError(f"{where}: expected JSON nested at most {MAX_JSON_DEPTH} deep, found deeper")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"the number {constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is out of range")
    return value


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return [child for child in value.values() if isinstance(child, dict | list)]
    return [child for child in value if isinstance(child, dict | list)] if isinstance(value, list) else []


def check_keys(found: dict[str, Any], expected: dict[str, type], where: str) -> None:
    """Check that an object has exactly the expected keys, each with a value of its type.

    Args:
        found: The object.
        expected: Type of the value by key.
        where: The name of the object, for messages.

    Raises:
        BundleFormatError: A key is missing or unknown, or a value has another type.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise BundleFormatError(f"{where}: missing key {missing[0]!r}")
    if unknown := sorted(found.keys() - expected.keys()):
        raise BundleFormatError(f"{where}: unknown key {unknown[0][:100]!r}; allowed are {', '.join(sorted(expected))}")
    for key, kind in expected.items():
        value = found[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BundleFormatError(f"{where}: {key}: expected {kind.__name__}, found {type(value).__name__}")
