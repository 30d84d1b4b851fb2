"""Judging a bundle by a policy: every rule on every set, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from eul_trainer.evaluation.policy import Policy, Rule
from eul_trainer.evaluation.roles import BASE

Side = Literal["passed", "below", "above", "gap", "uncovered"]
MEASURED = "measured"
"""Name of the finding that a request of the bundle was measured nowhere; no policy can leave it out."""


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
    """Whether it passed, and if not, on which side it fell; `gap` where it has no value, `uncovered` where the set
    belongs to a request that the bundle was never asked to forget."""
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

    A set that belongs to a request is judged under the bundles that cover it. A set that belongs to none stands for all
    requests. A request for which no set stands fails the bundle: nobody looked.

    Args:
        metrics: `metrics.json`.
        system: The system's name.
        policy: The policy.

    Returns:
        The verdict.
    """
    findings = (
        *_unmeasured(metrics, system),
        *(
            _find(metrics, system, rule, name)
            for rule in policy.rules
            for name in [part["name"] for part in metrics["sets"] if part["kind"] == rule.on] or [None]
        ),
    )
    failed = [finding for finding in findings if finding.failed]
    what = "; ".join(f"{finding.set}: {finding.words}" for finding in failed)
    judged = sum(finding.side != "uncovered" for finding in findings)
    sentence = f"{system} passes all {judged} findings" if not failed else f"{system} fails: {what}"
    return Verdict(passed=not failed, sentence=sentence, findings=findings)


def _unmeasured(metrics: Mapping[str, Any], system: str) -> list[Finding]:
    """Return a finding for each request of the bundle for which no set stands."""
    asked = [part.get("request") for part in metrics["sets"] if part["kind"] == "forget"]
    if None in asked:
        return []
    return [
        Finding(
            rule=MEASURED,
            set=request,
            value=None,
            side="gap",
            failed=True,
            words=f"no row of this request was measured; give --forget {request}=FILE",
        )
        for request in metrics.get("requests", {}).get(system, ())
        if request not in asked
    ]


def _covered(metrics: Mapping[str, Any], system: str, name: str | None) -> bool:
    """Return whether a set is the system's to forget, as far as is known; a whole model is asked about all of them."""
    request = next((part.get("request") for part in metrics["sets"] if part["name"] == name), None)
    covered = metrics.get("requests", {}).get(system)
    return request is None or covered is None or request in covered


def _find(metrics: Mapping[str, Any], system: str, rule: Rule, name: str | None) -> Finding:
    value = _value(metrics, system, rule, name) if name else None
    side: Side = "passed"
    if not _covered(metrics, system, name):
        side, words = "uncovered", "the bundle was not asked to forget these rows"
    elif value is None:
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
        other = _measure(metrics, BASE, rule.measure, unseen[0]) if unseen else None
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
