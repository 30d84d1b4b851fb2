"""A fusion measured and not written: what it does to the loss of retained rows, and of any others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eul_serve.format import read_bundle
from eul_trainer.fusion.fuse import merge, prepare
from eul_trainer.fusion.members import collect
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.records import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a fusion would do."""

    requests: tuple[str, ...]
    """Ids of the requests, in the order of their units."""
    rises: dict[str, dict[str, float]]
    """By set and group, how much the mean answer loss rises, nats."""
    facts: dict[str, Any]
    """What the method found on the way."""


def measure(
    paths: Sequence[Path], settings: FuseSettings, retained: Retained, others: Mapping[str, Sequence[Row]]
) -> Trial:
    """Fuse bundles in memory and measure the outcome.

    Args:
        paths: The bundles' directories.
        settings: The settings; also of methods whose outcome the bundle format cannot hold.
        retained: Retained rows and the base model.
        others: Further rows to measure, by name.

    Returns:
        The rises of the retained rows, as the set `retain`, and of the others.
    """
    bundles = [read_bundle(path) for path in paths]
    members = collect(bundles)
    retained.check_base(bundles[0])
    fused = merge(prepare(members, settings, retained))
    rises = {"retain": retained.rises(fused.layers, settings.calibration_rows)}
    for name, rows in others.items():
        rises[name] = Retained(model=retained.model, rows=rows).rises(fused.layers, len(rows))
    return Trial(requests=tuple(member.request.id for member in members), rises=rises, facts=fused.facts)
