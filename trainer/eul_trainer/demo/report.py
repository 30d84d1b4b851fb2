"""The page of the demonstration: one file, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import json

from eul_trainer.demo.plan import Plan
from eul_trainer.demo.promises import KEPT_CHANGE, RISE, missed
from eul_trainer.demo.summary import Summary
from eul_trainer.evaluation.page import render
from eul_trainer.evaluation.plots.losses import loss_bars


def write_report(plan: Plan, summary: Summary) -> None:
    """Write `report.html`."""
    sets = json.loads((plan.evaluation / "metrics.json").read_text())["sets"]
    page = render(
        "demo.html.j2",
        summary=summary,
        tenants=tuple(plan.bundles),
        missed=missed(summary),
        rise=RISE,
        kept=KEPT_CHANGE,
        plot=loss_bars(sets),
    )
    (plan.out / "report.html").write_text(page, encoding="utf-8")
