"""How a run is kept and followed: nothing here changes the layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eul_trainer.allowed import check
from eul_trainer.model.devices import SINGLE, Devices
from eul_trainer.upkeep.checkpoint import EVERY
from eul_trainer.upkeep.interrupt import Interrupt
from eul_trainer.upkeep.runlog import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """What goes on around a run."""

    every: int = EVERY
    """Steps between two checkpoints."""
    recorders: Sequence[Recorder] = ()
    """Logs of the run."""
    interrupt: Interrupt | None = None
    """Where the run learns that a signal asked it to end; None for nowhere."""
    devices: Devices = SINGLE
    """The processes that share the run's work."""

    def __post_init__(self) -> None:
        check(1 <= self.every <= 1_000_000, "checkpoint-every", self.every, "1 to 1000000")
