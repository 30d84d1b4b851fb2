"""Retained rows that remember what was measured on them, for the next method with the same layers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import torch

from eul_trainer.fusion.gated import Stack
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.store import RetainMoments

MOST = 3
"""Measurements that are remembered; one of thirty requests with inputs is 60 MiB."""
Moments = Mapping[str, RetainMoments]


@dataclass(slots=True, kw_only=True)
class Remembered(Retained):
    """The product's own class, which measures nothing twice and says what that saved."""

    saved: float = field(default=0.0, init=False)
    """Seconds of measuring that memory has saved so far."""
    _found: dict[tuple[str, bool], tuple[Moments, float]] = field(default_factory=dict, init=False)

    def moments(self, layers: Mapping[str, Stack], *, inputs: bool = False) -> dict[str, RetainMoments]:
        """Return what `Retained.moments` does, from memory where it was asked before."""
        key = (_digest(layers), inputs)
        if key in self._found:
            self.saved += self._found[key][1]
        else:
            started = time.perf_counter()
            found = Retained.moments(self, layers, inputs=inputs)
            while len(self._found) >= MOST:
                del self._found[next(iter(self._found))]
            self._found[key] = found, time.perf_counter() - started
        return dict(self._found[key][0])


def _digest(layers: Mapping[str, Stack]) -> str:
    found = hashlib.sha256()
    for path, layer in layers.items():
        found.update(path.encode())
        for value in (getattr(layer, part.name) for part in fields(layer)):
            if isinstance(value, torch.Tensor):
                found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()
