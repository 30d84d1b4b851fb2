"""The verdict on all bundles in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FEW = 2
"""Sets that the sentence names; of more it says how many."""


def headline(verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the sentence.

    Args:
        verdicts: `verdicts` of `metrics.json`.

    Returns:
        How many bundles pass, and which rules the others fail, without a full stop.
    """
    if not verdicts:
        return "No bundle was judged: these are numbers without a verdict"
    if len(verdicts) == 1:
        (only,) = verdicts.items()
        return _one(*only)
    passed = sum(bool(verdict["passed"]) for verdict in verdicts.values())
    told = "; ".join(_one(name, verdict) for name, verdict in verdicts.items())
    return f"{passed} of {len(verdicts)} bundles {'passes' if passed == 1 else 'pass'} the policy: {told}"


def _one(name: str, verdict: Mapping[str, Any]) -> str:
    asked = [finding for finding in verdict["findings"] if finding["side"] != "uncovered"]
    if verdict["passed"]:
        return f"{name} passes all {len(asked)} findings"
    failed: dict[str, list[str]] = {}
    for finding in asked:
        if finding["failed"]:
            failed.setdefault(finding["rule"], []).append(finding["set"])
    told = ", ".join(f"“{rule}” on {_sets(sets)}" for rule, sets in failed.items())
    return f"{name} fails {told}" if told else f"{name} does not pass"


def _sets(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) <= FEW else f"{len(names)} sets"
