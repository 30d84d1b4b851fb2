"""Every fusion method by name, with the settings that it is measured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eul_trainer.fusion.settings import FuseSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row of the table."""

    settings: dict[str, Any]
    """Settings of the fusion that differ from the defaults."""
    retain: bool = False
    """Whether it sees retained rows."""
    on_top: bool = False
    """Whether each layer was trained on top of those of the earlier requests."""
    ranks: int = 0
    """The fused layer's rank as a multiple of a single one's; 0 leaves it to the method."""

    def make(self, rank: int) -> FuseSettings:
        """Return the settings for layers of a rank."""
        return FuseSettings(**self.settings, **({"rank": self.ranks * rank} if self.ranks else {}))


def _alone(method: str, *, ranks: int = 0, **settings: Any) -> Method:
    """Return a method that reads retained rows and knows nothing of what layers do on each other's answers."""
    plain = {"method": method, "crosstalk": 0.0, **({"keep_energy": False} if method in ("concat", "gate") else {})}
    return Method(settings={**plain, **settings}, retain=True, ranks=ranks)


METHODS: dict[str, Method] = {
    "paper": Method(settings={"method": "regression"}),
    "paper, ridge 0.01": Method(settings={"method": "regression", "ridge": 1e-2}),
    "paper, off-diagonals x 0.1": Method(settings={"method": "regression", "shrink": 0.1}),
    "paper, retain Gram": Method(settings={"method": "regression", "retain_weight": 0.3}, retain=True),
    "sum": Method(settings={"method": "concat"}),
    "concat, rho 1": _alone("concat", rho=1.0),
    "concat, rho 3": _alone("concat", rho=3.0),
    "concat, rho 10": _alone("concat", rho=10.0),
    "concat, rho 30": _alone("concat", rho=30.0),
    "concat, rho 100": _alone("concat", rho=100.0),
    "concat, limit 0.05": _alone("concat", retain_limit=0.05),
    "concat, energy kept": _alone("concat", rho=30.0, keep_energy=True),
    "concat, healed": _alone("concat", rho=10.0, heal_steps=12),
    "compress, rank of one": _alone("compress", ranks=1),
    "compress, rank of two": _alone("compress", ranks=2),
    "compress, 99 % of energy": _alone("compress"),
    "distil": _alone("distil", ranks=1),
    "gate": _alone("gate"),
    "gate, slope 1": _alone("gate", gate_slope=1.0),
    "concat, crosstalk 0.1, no energy kept": _alone("concat", crosstalk=0.1),
    **{
        f"concat, crosstalk {weight:g}": Method(settings={"method": "concat", "crosstalk": weight}, retain=True)
        for weight in (0.1, 1.0)  # 0.3 is the default, which has a row
    },
    "compress, rank of two, crosstalk 0.3": Method(settings={"method": "compress"}, retain=True, ranks=2),
    "trained on top, sum": Method(settings={"method": "concat"}, on_top=True),
    "trained on top, rho 10": Method(
        settings={"method": "concat", "crosstalk": 0.0, "keep_energy": False}, retain=True, on_top=True
    ),
}
"""Methods by the name that the table gives them."""

SEQUENCE, UNION, DEFAULT = "in sequence", "on the union", "default"
"""One layer trained on one request after another; one trained on all at once; fuse with no setting given."""
METHODS[DEFAULT] = Method(settings={}, retain=True)
REFERENCES = (SEQUENCE, UNION)
TRAINED = {*REFERENCES, *(name for name, method in METHODS.items() if method.on_top)}
"""Methods that need trainings of their own, beside the requests' layers."""
