"""What the demonstration showed, in numbers: `summary.json`, the table at the end, and what was promised of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from eul_trainer.demo.plan import BOTH, Plan
from eul_trainer.demo.tenants import Asked

BASE = "base"
KNOWN_LOSS = 1.5
"""Highest answer loss, in nats, of something that the base model knows."""
LAYER_RISE = (2.0, 6.0)
"""Promised rise of the loss under a request's own layer, in nats."""
FUSED_RISE = (1.5, 6.0)
"""Promised rise under the fused bundle, in nats."""
KEPT_CHANGE = 0.1
"""Highest change of the loss on retained rows, in nats, in each group and under every bundle."""
GIBBERISH = 0.1
"""Highest share of answers that are no longer language."""
ROWS = {"forget": 20, "retain": 50}
"""Fewest held-out rows."""


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
    swap: Swap
    """The swap under load."""
    refused: dict[str, str]
    """The server's words by what was tried."""
    answers: list[Asked]
    """The questions with every tenant's answers."""
    seconds: float
    """Wall time of the whole demonstration."""


def summarize(plan: Plan, service: Service, seconds: float) -> Summary:
    """Gather the numbers and write `summary.json`.

    Args:
        plan: The demonstration's plan.
        service: What the server did.
        seconds: Wall time so far.

    Returns:
        The summary.
    """
    sets = json.loads((plan.evaluation / "metrics.json").read_text())["sets"]
    groups = {name: group for found in sets if found["kind"] == "retain" for name, group in found["groups"].items()}
    summary = Summary(
        forget=[_forget(found) for found in sets if found["kind"] == "forget"],
        retain=[_retain(plan, name, group) for name, group in groups.items()],
        gibberish={name: max(found["systems"][name]["gibberish"] for found in sets) for name in plan.bundles},
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


def missed(summary: Summary) -> list[str]:
    """Return every promise that the numbers do not keep, in words; an empty list is success."""
    broken = []
    for line in summary.forget:
        rises = ((line.layer - line.before, LAYER_RISE, "its layer"), (line.fused - line.before, FUSED_RISE, "fused"))
        for rise, (low, high), what in rises:
            if not low <= rise <= high:
                broken.append(f"{line.name}, {what}: rise {rise:.2f} nats, promised {low} to {high}")
        if line.before > KNOWN_LOSS or line.rows < ROWS["forget"]:
            broken.append(f"{line.name}: {line.rows} rows with loss {line.before:.2f} before")
    for line in summary.retain:
        change = max(abs(line.layer - line.before), abs(line.fused - line.before))
        if change > KEPT_CHANGE:
            broken.append(f"kept rows {line.name}: change {change:.3f} nats, promised at most {KEPT_CHANGE}")
    if sum(line.rows for line in summary.retain) < ROWS["retain"]:
        broken.append(f"kept rows: fewer than {ROWS['retain']}")
    broken += [
        f"{name}: {share:.0%} gibberish answers, promised at most {GIBBERISH:.0%}"
        for name, share in summary.gibberish.items()
        if share > GIBBERISH
    ]
    return broken + _missed_swap(summary.swap)


def _missed_swap(swap: Swap) -> list[str]:
    broken = [f"swap: {swap.failed} of {swap.requests} requests failed: {swap.errors}"] if swap.failed else []
    if len(swap.revisions) != 2:
        broken.append(f"swap: {len(swap.revisions)} revisions answered, promised both")
    return broken


def print_table(plan: Plan, summary: Summary) -> None:
    """Print what a newcomer wants to know."""
    console = Console()
    table = Table(title="Mean loss of the true answer, in nats, on rows that were not trained on")
    for name in ("", "rows", "before", "own layer", "fused bundle"):
        table.add_column(name, justify="left" if name == "" else "right")
    for what, lines in (("forget", summary.forget), ("keep", summary.retain)):
        for line in lines:
            cells = (f"{line.before:.2f}", f"{line.layer:.2f}", f"{line.fused:.2f}")
            table.add_row(f"{what} {line.name}", str(line.rows), *cells)
    console.print(table)
    answers = Table(title="The same question, asked as three tenants", show_lines=True)
    for name in ("question", *plan.bundles):
        answers.add_column(name)
    for asked in summary.answers:
        answers.add_row(asked.question, *asked.answers.values())
    console.print(answers)
    swap = summary.swap
    console.print(
        f"Hot swap: {swap.requests} requests, {swap.failed} failed, {len(swap.revisions)} revisions seen, new one "
        f"answering {swap.seconds:.1f} s after the promotion began.\nDenied: {'; '.join(summary.refused)}; "
        f"promoting back to a revision that forgets less.\nAll of it took {summary.seconds:.0f} s. "
        f"Report: {plan.out / 'report.html'}"
    )
