"""What is promised of the demonstration's numbers."""

from __future__ import annotations

from collections.abc import Iterator

from eul_trainer.demo.summary import Summary, Swap

KNOWN_LOSS = 1.5
"""Highest answer loss, in nats, of something that the base model knows."""
RISE = (1.0, 4.0)
"""Promised rise of the loss under a request's own layer and under the fused bundle, in nats."""
KEPT_CHANGE = 0.1
"""Highest change of the loss on retained rows, in nats, in each group and under every bundle."""
GIBBERISH = 0.1
"""Highest share of answers that are no longer language."""
ROWS = {"forget": 20, "retain": 50}
"""Fewest held-out rows."""


def missed(summary: Summary) -> list[str]:
    """Return every promise that the numbers do not keep, in words; an empty list is success."""
    return [*_missed_forget(summary), *_missed_retain(summary), *_missed_verdicts(summary), *_missed_swap(summary.swap)]


def _missed_forget(summary: Summary) -> Iterator[str]:
    low, high = RISE
    for line in summary.forget:
        for loss, what in ((line.layer, "its layer"), (line.fused, "fused")):
            if not low <= loss - line.before <= high:
                yield f"{line.name}, {what}: rise {loss - line.before:.2f} nats, promised {low} to {high}"
        if line.before > KNOWN_LOSS or line.rows < ROWS["forget"]:
            yield f"{line.name}: {line.rows} rows with loss {line.before:.2f} before"


def _missed_retain(summary: Summary) -> Iterator[str]:
    for line in summary.retain:
        change = max(abs(line.layer - line.before), abs(line.fused - line.before))
        if change > KEPT_CHANGE:
            yield f"kept rows {line.name}: change {change:.3f} nats, promised at most {KEPT_CHANGE}"
    if sum(line.rows for line in summary.retain) < ROWS["retain"]:
        yield f"kept rows: fewer than {ROWS['retain']}"


def _missed_verdicts(summary: Summary) -> Iterator[str]:
    for name, share in summary.gibberish.items():
        if share > GIBBERISH:
            yield f"{name}: {share:.0%} gibberish answers, promised at most {GIBBERISH:.0%}"
    for verdict in summary.verdicts.values():
        if not verdict.passed:
            yield f"policy: {verdict.said}"
    if not summary.certified.passed:
        yield f"certificate: {summary.certified.said}"


def _missed_swap(swap: Swap) -> Iterator[str]:
    if swap.failed:
        yield f"swap: {swap.failed} of {swap.requests} requests failed: {swap.errors}"
    if len(swap.revisions) != 2:
        yield f"swap: {len(swap.revisions)} revisions answered, promised both"
