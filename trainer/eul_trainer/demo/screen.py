"""The tables that the demonstration ends with."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from eul_trainer.demo.plan import Plan
from eul_trainer.demo.summary import Summary


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
        f"answering {swap.seconds:.1f} s after the promotion began.\n{summary.certified.said}\n"
        f"Denied: {'; '.join(summary.refused)}; promoting back to a revision that forgets less.\n"
        f"All of it took {summary.seconds:.0f} s. Report: {plan.out / 'report.html'}"
    )
