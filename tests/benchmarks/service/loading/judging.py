"""What a run of swaps comes to: failures, wrong answers, what a reader felt, and how long a swap took."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loading.moving import Interval
from loading.outcome import PROBE, Outcome, percentile
from loading.samples import metric
from loading.timeline import FAULTS, Move, Reference, Timeline, swap_seconds

STAGES = ("pull", "verify", "load", "probe", "activate", "drain")
ALWAYS = -math.inf
"""Monotonic seconds before everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What happened, and what is known of it."""

    names: Mapping[str, str]
    """Each tenant's bundle."""
    first: Mapping[str, str]
    """Where each bundle's alias pointed at the beginning."""
    moves: Mapping[str, Sequence[Move]]
    """The moves of the aliases that were moved, by bundle."""
    references: Mapping[str, Reference]
    """What each revision answers."""
    late_seconds: float
    """After a move, beyond which an answer of the revision before is late."""

    def path(self, name: str) -> list[Move]:
        """Return where a bundle's alias pointed, from the beginning on."""
        return [Move(revision=self.first[name], began=ALWAYS, done=ALWAYS), *self.moves.get(name, ())]


def judge(case: Case, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what failed, what was wrong or late, and how many answers were looked at.

    Args:
        case: What happened.
        outcomes: All requests.

    Returns:
        The counts, and why the first requests failed.
    """
    failed = [one for one in outcomes if one.error]
    answered = [one for one in outcomes if not one.error]
    faults: Counter[str] = Counter(dict.fromkeys(FAULTS, 0))
    late = 0
    for name in case.first:
        own = [one for one in answered if case.names[one.tenant] == name]
        timeline = Timeline(case.path(name), case.references, own)
        faults.update(fault for one in own if (fault := timeline.fault(one)))
        late += sum(timeline.is_late(one, case.late_seconds) for one in own)
    streams = load_of(answered)
    moves = [move for each in case.moves.values() for move in each]
    return {
        "failed": len(failed),
        "wrong_revision": sum(faults.values()),
        "wrong": dict(faults),
        "late": late,
        "answers": len(streams),
        "probes": len(answered) - len(streams),
        "answers_during_a_move": sum(any(one.sent < move.began < one.times[-1] for move in moves) for one in streams),
        "errors": [one.error for one in failed][:5],
    }


def load_of(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the answers of the load, without those of the probe."""
    return [one for one in outcomes if one.number != PROBE and not one.error]


def latencies(intervals: Sequence[Interval], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the p99 between two pieces in every interval, and the ratios of the pairs."""
    streams = load_of(outcomes)
    by_kind = {kind: [one for one in intervals if one.kind == kind] for kind in ("quiet", "swaps")}
    found = {kind: [1000 * one.p99(streams) for one in each] for kind, each in by_kind.items()}
    ratios = [swaps / quiet for swaps, quiet in zip(found["swaps"], found["quiet"], strict=True)]
    return {
        "itl_p99_ratio": statistics.median(ratios),
        "itl_p99_ratio_range": [min(ratios), max(ratios)],
        "itl_p99_ms": found,
        "interval_seconds": {kind: [one.end - one.begin for one in each] for kind, each in by_kind.items()},
    }


def durations(moves: Sequence[Move], outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the seconds of a swap, from the begin of the move to the first token of its revision."""
    found = swap_seconds(moves, [one for one in outcomes if not one.error])
    return {
        "seconds_p50": percentile(found, 50),
        "seconds_p99": percentile(found, 99),
        "seconds_max": max(found, default=math.nan),
    }


def stages(text: str) -> dict[str, float]:
    """Return the mean milliseconds of every stage of a swap, as a server's metrics have them."""
    name, found = "eul_swap_duration_seconds", {}
    for stage in STAGES:
        count = metric(text, f'{name}_count{{stage="{stage}"}}')
        found[stage] = 1000 * metric(text, f'{name}_sum{{stage="{stage}"}}') / count if count else math.nan
    return found
