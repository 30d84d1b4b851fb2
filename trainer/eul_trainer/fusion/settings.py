"""The settings of a fusion, each with one default; which method reads which is said in methods.py. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from eul_serve.format.config import MAX_RANK
from eul_trainer.allowed import check

METHODS = ("concat", "regression", "compress", "distil", "gate")
"""Names of the methods, the default first."""
RHO = 10.0
"""Weight of retained data where none is given."""
_RANGES: dict[str, tuple[float, float, str]] = {
    "rho": (0, 1e6, "0 to 1000000"),
    "crosstalk": (0, 1e6, "0 to 1000000"),
    "retain_limit": (1e-6, 100, "0.000001 to 100"),
    "calibration_rows": (1, 100_000, "1 to 100000"),
    "retain_weight": (0, 1e6, "0 to 1000000"),
    "shrink": (0, 1, "0 to 1"),
    "heal_steps": (0, 10_000, "0 to 10000"),
    "heal_rate": (1e-8, 1, "0.00000001 to 1"),
    "heal_anchor": (0, 1e6, "0 to 1000000"),
    "rank": (1, MAX_RANK, f"1 to {MAX_RANK}"),
    "energy": (0.01, 1, "0.01 to 1"),
    "distil_steps": (0, 100_000, "0 to 100000"),
    "gate_slope": (1e-3, 1e3, "0.001 to 1000"),
    "seed": (0, 2**31 - 1, "0 to 2147483647"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseSettings:
    """How layers are fused."""

    method: str = METHODS[0]
    """One of METHODS."""
    ridge: float = 1e-4
    """Ridge of a solve, relative to the mean of the Gram's diagonal."""
    rho: float | None = None
    """Weight of retained data against forgotten data; read where a retain set is given. None: RHO, or what the limit
    takes."""
    crosstalk: float = 0.3
    """Weight of what layers do on each other's answers, against what they do on their own; read where a retain set is
    given. 0 does without, and lets the fused bundle forget further than the layers do."""
    rho_blocks: str = ""
    """Weights of single blocks in place of rho, such as `0-9=30,29=1`."""
    retain_limit: float | None = None
    """Largest rise of a group's retained loss, nats; rho is then the smallest that keeps it. None takes rho."""
    calibration_rows: int = 64
    """Most retained rows on which the rise is measured."""
    keep_energy: bool = True
    """Whether each member's part of U is scaled back to the output energy that it had alone."""
    heal_steps: int = 0
    """Gradient steps on retained rows after the solve."""
    heal_rate: float = 1e-3
    """Learning rate of these steps."""
    heal_anchor: float = 1.0
    """Weight that holds U to the solved one during these steps, in the metric of the stored Grams."""
    shrink: float = 1.0
    """Factor on the off-diagonals of the Grams in regression; 1 leaves them."""
    retain_weight: float = 0.0
    """Weight of retained data, with the zero layer as its target, in regression."""
    rank: int | None = None
    """Hidden units of the fused bundle; None leaves it to `energy` or to the layers."""
    energy: float = 0.99
    """Share of the output energy that every block keeps when units are dropped."""
    distil_steps: int = 200
    """Steps of distillation per block."""
    gate_slope: float = 3.0
    """Slope of a gate, k; from 1 on it is fully open at the mean of the request's own inputs."""
    seed: int = 0
    """Seed of healing and distillation."""

    def __post_init__(self) -> None:
        check(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        check(0 < self.ridge <= 1, "ridge", self.ridge, "above 0 and at most 1")
        for name, (low, high, allowed) in _RANGES.items():
            value = getattr(self, name)
            check(value is None or low <= value <= high, name.replace("_", "-"), value, allowed)
        self.weight_of("")  # refuses rho_blocks that are not of its form

    def weight_of(self, module: str) -> float:
        """Return the weight of retained data for a module: that of its block, or rho.

        Args:
            module: Path of the module; its first number is its block.

        Returns:
            The weight.
        """
        number = next((int(part) for part in module.split(".") if part.isdigit()), -1)
        weight = self.rho or 0.0
        for item in filter(None, self.rho_blocks.split(",")):
            found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?=(\d+(?:\.\d+)?)", item.strip())
            check(found is not None, "rho-blocks", item, "BLOCK=WEIGHT or FIRST-LAST=WEIGHT, by commas")
            if found and int(found[1]) <= number <= int(found[2] or found[1]):
                weight = float(found[3])
        return weight

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> FuseSettings:
        """Return the settings that a fused bundle's manifest records; what it does not name has its default."""
        return cls(**{field.name: facts[field.name] for field in fields(cls) if field.name in facts})
