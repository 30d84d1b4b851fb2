"""From measurements to the table: the worst request, the mean over requests, and both over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.output import mean, spread

from fusing.inputs import HEADLINE


def judge(
    own: Mapping[str, float],
    fused: Mapping[str, float],
    before: Mapping[str, list[float]],
    held: Mapping[str, list[float]],
) -> dict[str, Any]:
    """Return how far forgetting fell and retained rows moved, in one measurement.

    Args:
        own: Loss of each request's rows under its own layer, nats.
        fused: The same under the fused layer.
        before: Loss of each held-out row on the bare model, by group.
        held: The same under the fused layer.

    Returns:
        forget_gap_nats_max, _mean and _min (positive: below the own layer; negative: forgotten further),
        retain_change_nats by group (signed, the mean), retain_moved_nats by group (the mean of absolute changes).
    """
    gaps = [own[name] - fused[name] for name in fused]
    changes = {
        group: [new - old for new, old in zip(losses, before[group], strict=True)] for group, losses in held.items()
    }
    return {
        "forget_gap_nats_max": max(gaps),
        "forget_gap_nats_mean": mean(gaps),
        "forget_gap_nats_min": min(gaps),
        "forget_loss_nats": mean(list(fused.values())),
        "retain_change_nats": {group: mean(rows) for group, rows in changes.items()},
        "retain_moved_nats": {group: mean([abs(row) for row in rows]) for group, rows in changes.items()},
    }


def over_seeds(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one cell of the table from the same measurement under several seeds.

    Args:
        found: The measurements.

    Returns:
        forget_gap_nats_max and _min are the ends over requests and seeds; retain_change_nats is the headline group's
        change furthest from zero over seeds; means and standard deviations over seeds beside them.
    """
    changes = [one["retain_change_nats"][HEADLINE] for one in found]
    gaps = [one["forget_gap_nats_max"] for one in found]
    return {
        "seeds": len(found),
        "seconds": mean([one["seconds"] for one in found]),
        "rank": max(one["rank"] for one in found),
        "forget_gap_nats_max": max(gaps),
        "forget_gap_nats_max_mean": mean(gaps),
        "forget_gap_nats_max_sd": spread(gaps),
        "forget_gap_nats_mean": mean([one["forget_gap_nats_mean"] for one in found]),
        "forget_gap_nats_min": min(one["forget_gap_nats_min"] for one in found),
        "forget_loss_nats": mean([one["forget_loss_nats"] for one in found]),
        "retain_change_nats": max(changes, key=abs),
        "retain_change_nats_mean": mean(changes),
        "retain_change_nats_sd": spread(changes),
        "retain_moved_nats": mean([one["retain_moved_nats"][HEADLINE] for one in found]),
        "other_groups": {
            group: mean([one["retain_change_nats"][group] for one in found])
            for group in found[0]["retain_change_nats"]
            if group != HEADLINE
        },
    }


def markdown(cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the table: a row a method; by number of requests both ends of the gap, retain change and seconds."""
    counts = sorted({int(count) for row in cells.values() for count in row})
    heads = [f"{count} requests: gap max, min / retain / s" for count in counts]
    lines = [f"| method | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    for method, row in cells.items():
        parts = []
        for count in counts:
            cell = row.get(str(count))
            parts.append(_text(cell) if cell else "")
        lines.append(f"| {method} | {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def _text(cell: Mapping[str, Any]) -> str:
    ends = f"{cell['forget_gap_nats_max']:+.2f}, {cell['forget_gap_nats_min']:+.2f}"
    return f"{ends} / {cell['retain_change_nats']:+.3f} / {cell['seconds']:.1f}"
