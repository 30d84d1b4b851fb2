"""`python -m eul_trainer.demo`: the whole path, from two deletion requests to answers of three tenants."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click

from eul_serve.errors import EulError
from eul_trainer.demo import build, tenants
from eul_trainer.demo.plan import BOTH, Plan
from eul_trainer.demo.promises import missed
from eul_trainer.demo.report import write_report
from eul_trainer.demo.screen import print_table
from eul_trainer.demo.server import serving
from eul_trainer.demo.shell import run
from eul_trainer.demo.summary import Service, Summary, Swap, summarize
from eul_trainer.demo.traffic import Traffic


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/demo"), show_default=True)
@click.option("--model", type=click.Path(path_type=Path), default=Path("build/base"), show_default=True)
def main(out: Path, model: Path) -> None:
    """Forget two things that a real model knows, and show it; the report is OUT/report.html."""
    try:
        summary = demonstrate(Plan(out=out, model=model))
    except EulError as error:
        click.secho(f"demo: {error}", err=True, fg="red")
        sys.exit(error.exit_status)
    failed = missed(summary)
    for line in failed:
        click.secho(f"not met: {line}", err=True, fg="red")
    sys.exit(1 if failed else 0)


def demonstrate(plan: Plan) -> Summary:
    """Run the demonstration; its results are in `plan.out`.

    Args:
        plan: Paths and sizes.

    Returns:
        The summary, as written to `summary.json`.
    """
    started = time.monotonic()
    shutil.rmtree(plan.out, ignore_errors=True)
    plan.out.mkdir(parents=True)
    build.train(plan)
    build.evaluate(plan)
    certified = build.certify(plan)
    revisions = build.publish(plan)
    service = serve(plan, revisions)
    summary = summarize(plan, service, certified, time.monotonic() - started)
    write_report(plan, summary)
    print_table(plan, summary)
    return summary


def serve(plan: Plan, revisions: dict[str, str]) -> Service:
    """Start the server, ask as every tenant, try what is denied, and move an alias under load."""
    tokens = tenants.write_policy(plan)
    arguments = [
        "eul", "serve", "--model", str(plan.model), "--registry", str(plan.registry),
        "--policy", str(plan.out / "policy.toml"), "--cache", str(plan.out / "cache"),
        "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--dtype", plan.dtype,
    ]  # fmt: skip
    with serving(arguments, plan.out / "ready.json", plan.out / "server.log") as ready:
        address = ready["listen"]
        asked = tenants.ask(address, tokens)
        refused = tenants.refusals(address, tokens)
        return Service(asked, refused, swap(plan, address, tokens, revisions))


def swap(plan: Plan, address: str, tokens: dict[str, str], revisions: dict[str, str]) -> Swap:
    """Move the first tenant's alias to the fused bundle while its requests run."""
    name = plan.topics[0]
    build.publish_one(plan, BOTH, name)
    with Traffic(address, tokens[name], tenants.QUESTIONS) as traffic:
        traffic.wait(revisions[name])
        moved = time.monotonic()
        run("eul", "promote", f"{name}@{revisions[BOTH]}", "stable", "--registry", str(plan.registry))
        traffic.wait(revisions[BOTH], count=1)
        seconds = time.monotonic() - moved
        traffic.wait(revisions[BOTH])
    return Swap(
        requests=len(traffic.revisions) + len(traffic.failures),
        failed=len(traffic.failures),
        revisions=traffic.seen,
        seconds=round(seconds, 2),
        refused=tenants.unforget_refused(plan, name, revisions[name]),
        errors=traffic.failures[:3],
    )


if __name__ == "__main__":
    main()
