"""Settings of the engine, and the part of them that every worker needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The maximum ranks that vLLM knows; a bundle may have any rank up to the maximum."""
DTYPES = ("float32", "bfloat16", "float16")


def held_rank(rank: int) -> int:
    """Return the lowest maximum rank of vLLM that holds a rank; the rank itself where none does."""
    return next((allowed for allowed in RANKS if allowed >= rank), rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How to start the engine."""

    model: Path
    """Directory of the base model."""
    dtype: str = "float32"
    """dtype of weights and activations: float32, bfloat16 or float16."""
    max_context: int = 2048
    """Longest prompt and answer together, in tokens."""
    slots: int = 4
    """Bundles that can be in one batch."""
    capacity: int = 16
    """Bundles kept in host memory; at least `slots`, and two or more, as a swap holds two revisions."""
    turn_seconds: float = 2.0
    """Seconds for which a bundle takes up new requests while requests for other bundles wait for a slot."""
    max_rank: int = 64
    """Highest rank of a bundle; taken up to the next of 1, 8, 16, 32, 64, 128, 256, 320 and 512."""
    max_batch: int = 64
    """Requests that run at the same time."""
    max_batch_tokens: int | None = None
    """Tokens of one step, `max_batch` or more; longer prompts are read in parts. None is vLLM's own choice."""
    kv_cache_gib: float = 1.0
    """Memory for the key-value cache, in GiB."""
    deny_base: bool = True
    """Refuse every request without a bundle."""
    bundles: Path | None = None
    """Directory that every bundle must lie in, the verified cache; None allows any absolute path."""
    derived_from: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of the model that a copy was made from, by the copy's own; what a policy says of quantised copies."""
    fine_tunes: bool = False
    """Serve composites: bundles with a tenant's LoRA beside them. Makes vLLM's LoRA layers, at a cost."""
    enforce_eager: bool = True
    """Run without compiled graphs: starts faster and, on a CPU, runs about as fast."""
    tensor_parallel: int = 1
    """Devices that share every block; on a CPU, processes that share its cores."""
    pipeline_parallel: int = 1
    """Groups of devices that hold a part of the blocks each."""
    seed: int = 0
    """Seed of the samplers that have none of their own."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r}: expected one of {', '.join(DTYPES)}")
        lowest = {"max_context": 2, "capacity": max(2, self.slots)}
        lowest |= dict.fromkeys(("slots", "max_batch", "tensor_parallel", "pipeline_parallel"), 1)
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected {least} or more, found {getattr(self, name)}")
        if self.max_batch_tokens is not None and self.max_batch_tokens < self.max_batch:
            raise InputError(
                f"max_batch_tokens: expected max_batch ({self.max_batch}) or more, found {self.max_batch_tokens}"
            )
        if not 1 <= self.max_rank <= RANKS[-1]:
            raise InputError(f"max_rank: expected 1 to {RANKS[-1]}, found {self.max_rank}")
        if not self.turn_seconds >= 0:
            raise InputError(f"turn_seconds: expected 0 or more, found {self.turn_seconds}")
        if not self.kv_cache_gib > 0:
            raise InputError(f"kv_cache_gib: expected more than 0, found {self.kv_cache_gib}")

    @property
    def vllm_rank(self) -> int:
        """The lowest maximum rank of vLLM that holds `max_rank`."""
        return held_rank(self.max_rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker must know; the defaults are those under vLLM's own entry points."""

    plain_lora: bool = True
    """Whether plain LoRA adapters may be loaded as well."""
    derived_from: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of the model that a copy was made from, by the copy's own."""
    fine_tunes: bool = True
    """Whether composites may be loaded."""
    bundles: Path | None = None
    """Directory that every bundle must lie in; None allows any absolute path."""

    @property
    def lora_layers(self) -> bool:
        """Whether vLLM's own LoRA layers are needed."""
        return self.plain_lora or self.fine_tunes

    @classmethod
    def from_config(cls, additional_config: object) -> WorkerSettings:
        """Read the settings from vLLM's `additional_config`."""
        found = additional_config.get("eul", {}) if isinstance(additional_config, dict) else {}
        bundles = found.get("bundles")
        return cls(
            plain_lora=found.get("plain_lora", True),
            derived_from=dict(found.get("derived_from", {})),
            fine_tunes=found.get("fine_tunes", True),
            bundles=Path(bundles) if bundles else None,
        )

    def to_config(self) -> dict[str, Any]:
        """Return the entry for vLLM's `additional_config`."""
        bundles = None if self.bundles is None else str(self.bundles)
        return {
            "eul": {
                "plain_lora": self.plain_lora,
                "derived_from": dict(self.derived_from),
                "fine_tunes": self.fine_tunes,
                "bundles": bundles,
            }
        }
