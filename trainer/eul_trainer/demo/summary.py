"""What the demonstration showed, in numbers: `summary.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from eul_trainer.demo.plan import BOTH, Plan
from eul_trainer.demo.tenants import Asked

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Mean answer loss on some held-out rows, in nats."""

    name: str
    """The topic, or the group of retained rows."""
    rows: int
    """How many rows."""
    before: float
    """Under the base model."""
    layer: float
    """Under the topic's own layer; for retained rows, under the layer that changed them most."""
    fused: float
    """Under the fused bundle."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the policy made of a bundle, or the check of a certificate."""

    passed: bool
    """Whether it passed."""
    said: str
    """What was said of it, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """What happened while an alias moved under load."""

    requests: int
    """Requests made."""
    failed: int
    """Requests that were not answered."""
    revisions: list[str]
    """Revisions that answered, in order of appearance."""
    seconds: float
    """From the promotion's start to the first answer of the new revision."""
    refused: str
    """What the registry said when asked to promote back to a revision that forgets less."""
    errors: list[str]
    """Error texts of the first failed requests."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the server answered and refused."""

    asked: list[Asked]
    """The questions with every tenant's answers."""
    refused: dict[str, str]
    """The server's words by what was tried."""
    swap: Swap
    """The swap under load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything that the demonstration promises, and a bit more."""

    forget: list[Line]
    """One line for each deletion request."""
    retain: list[Line]
    """One line for each group of retained rows."""
    gibberish: dict[str, float]
    """Highest share of gibberish answers over the sets, by bundle."""
    verdicts: dict[str, Judged]
    """What the policy says of each bundle."""
    certified: Judged
    """The fused bundle's certificate."""
    swap: Swap
    """The swap under load."""
    refused: dict[str, str]
    """The server's words by what was tried."""
    answers: list[Asked]
    """The questions with every tenant's answers."""
    seconds: float
    """Wall time of the whole demonstration."""


def summarize(plan: Plan, service: Service, certified: Judged, seconds: float) -> Summary:
    """Gather the numbers and write `summary.json`.

    Args:
        plan: The demonstration's plan.
        service: What the server did.
        certified: The fused bundle's certificate.
        seconds: Wall time so far.

    Returns:
        The summary.
    """
    metrics = json.loads((plan.evaluation / "metrics.json").read_text())
    sets, verdicts = metrics["sets"], metrics["verdicts"]
    groups = {name: group for found in sets if found["kind"] == "retain" for name, group in found["groups"].items()}
    summary = Summary(
        forget=[_forget(found) for found in sets if found["kind"] == "forget"],
        retain=[_retain(plan, name, group) for name, group in groups.items()],
        gibberish={name: max(found["systems"][name]["gibberish"] for found in sets) for name in plan.bundles},
        verdicts={name: Judged(verdicts[name]["passed"], verdicts[name]["sentence"]) for name in plan.bundles},
        certified=certified,
        swap=service.swap,
        refused=service.refused,
        answers=service.asked,
        seconds=round(seconds, 1),
    )
    (plan.out / "summary.json").write_text(json.dumps(asdict(summary), indent=1) + "\n")
    return summary


def _forget(found: dict[str, Any]) -> Line:
    topic = found["name"].removeprefix("forget_")
    losses = _losses(found)
    return Line(name=topic, rows=found["rows"], before=losses[BASE], layer=losses[topic], fused=losses[BOTH])


def _retain(plan: Plan, name: str, group: dict[str, Any]) -> Line:
    losses = _losses(group)
    worst = max(plan.topics, key=lambda topic: abs(losses[topic] - losses[BASE]))
    return Line(name=name, rows=group["rows"], before=losses[BASE], layer=losses[worst], fused=losses[BOTH])


def _losses(found: dict[str, Any]) -> dict[str, float]:
    return {name: round(system["loss"], 3) for name, system in found["systems"].items()}
