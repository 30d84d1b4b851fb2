"""Judging a bundle by a policy: every rule on every set, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from eul_trainer.evaluation.policy import Policy, Rule

Side = Literal["passed", "below", "above", "gap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule on one set."""

    rule: str
    """The rule's name."""
    set: str
    """The set's name; the rule's kind where there is no such set."""
    value: float | None
    """What was found, in the measure's unit; None where it has no value."""
    side: Side
    """Whether it passed, and if not, on which side it fell; `gap` where it has no value."""
    failed: bool
    """Whether this fails the policy."""
    words: str
    """The finding in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a policy says of a system."""

    passed: bool
    """Whether no rule failed."""
    sentence: str
    """The verdict in one sentence."""
    findings: tuple[Finding, ...]
    """Every rule on every set."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON."""
        return asdict(self)


def judge(metrics: Mapping[str, Any], system: str, policy: Policy) -> Verdict:
    """Judge a system.

    Args:
        metrics: `metrics.json`.
        system: The system's name.
        policy: The policy.

    Returns:
        The verdict.
    """
    findings = tuple(
        _find(metrics, system, rule, name)
        for rule in policy.rules
        for name in [part["name"] for part in metrics["sets"] if part["kind"] == rule.on] or [None]
    )
    failed = [finding for finding in findings if finding.failed]
    what = "; ".join(f"{finding.set}: {finding.words}" for finding in failed)
    sentence = f"{system} passes all {len(findings)} findings" if not failed else f"{system} fails: {what}"
    return Verdict(passed=not failed, sentence=sentence, findings=findings)


def _find(metrics: Mapping[str, Any], system: str, rule: Rule, name: str | None) -> Finding:
    value = _value(metrics, system, rule, name) if name else None
    side: Side = "passed"
    if value is None:
        side, words = (
            "gap",
            f"no value for {_called(rule)}" + (f" ({why})" if (why := _why(metrics, system, rule)) else ""),
        )
    elif value < rule.low:
        side, words = "below", f"{rule.below} ({_called(rule)} {value:+.3f}, at least {rule.low:+g})"
    elif value > rule.high:
        side, words = "above", f"{rule.above} ({_called(rule)} {value:+.3f}, at most {rule.high:+g})"
    else:
        words = f"{_called(rule)} {value:+.3f}"
    failed = side in ("below", "above") or (side == "gap" and rule.needed)
    return Finding(rule=rule.name, set=name or rule.on, value=value, side=side, failed=failed, words=words)


def _called(rule: Rule) -> str:
    return f"{rule.measure} beside {rule.beside}" if rule.beside else rule.measure


def _value(metrics: Mapping[str, Any], system: str, rule: Rule, name: str) -> float | None:
    """Return the measure, less what it stands beside; None where one of the two has no value."""
    mine = _measure(metrics, system, rule.measure, name)
    if not rule.beside:
        return mine
    if rule.beside == "unseen":
        unseen = [part["name"] for part in metrics["sets"] if part["kind"] == "unseen"]
        other = _measure(metrics, system, rule.measure, unseen[0]) if unseen else None
    else:
        other = _measure(metrics, rule.beside, rule.measure, name)
    return None if mine is None or other is None else mine - other


def _measure(metrics: Mapping[str, Any], system: str, measure: str, name: str) -> float | None:
    comparison, dot, number = measure.partition(".")
    if dot:
        found = metrics["comparisons"].get(system, {}).get(name, {}).get(comparison)
        value = found.get(number) if isinstance(found, Mapping) else None
    else:
        means = next(part["systems"] for part in metrics["sets"] if part["name"] == name)
        value = means.get(system, {}).get(measure)
        if value is None:  # a comparison that is one number
            value = metrics["comparisons"].get(system, {}).get(name, {}).get(measure)
    return value if isinstance(value, int | float) else None


def _why(metrics: Mapping[str, Any], system: str, rule: Rule) -> str:
    measure = rule.measure.partition(".")[0]
    return next((gap["why"] for gap in metrics["gaps"] if gap["system"] == system and gap["measure"] == measure), "")
