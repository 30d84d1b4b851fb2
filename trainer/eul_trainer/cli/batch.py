"""`eul-train batch`: a queue of deletion requests becomes layers, one fused bundle and a report."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from eul_trainer.cli import fit, options
from eul_trainer.cli.aims import Aims, take_aims
from eul_trainer.cli.main import emit
from eul_trainer.cli.queue import queue_progress
from eul_trainer.settings import FitSettings

SOME_FAILED = 1
"""Exit status where a request failed for good, or the layers could not be fused."""


@click.command(name="batch")
@click.argument("requests", type=options.PATH, metavar="REQUESTS.jsonl")
@options.model
@options.retain
@click.option("--out", required=True, type=options.PATH, metavar="DIR", help="Directory to write, or to go on in.")
@click.option(
    "--earlier",
    multiple=True,
    type=options.PATH,
    metavar="FILE",
    help="Requests that were honoured before this batch; may be given again.",
)
@click.option(
    "--ray-address",
    default="",
    metavar="ADDRESS|local",
    help="Ray cluster, as HOST:6379; local starts one here. Without it: in this process, one after another.",
)
@click.option("--jobs", type=int, default=None, help="Requests at once.  [default: as the cluster has processors]")
@click.option("--cpus", type=int, default=1, show_default=True, help="Processors of the cluster for each request.")
@click.option("--retries", type=int, default=2, show_default=True, help="Further attempts at a request that failed.")
@click.option(
    "--retain-rule",
    type=click.Choice(["all", "earlier"]),
    default="all",
    show_default=True,
    help="Whose rows leave a retain set: those of the whole batch, or of the request and those before it.",
)
@click.option(
    "--fuse-method", default="concat", show_default=True, metavar="METHOD", help="How layers are fused, as by fuse."
)
@click.option("--allow-partial", is_flag=True, help="Fuse what there is although a request failed.")
@options.device
@options.as_json
def command(
    requests: Path,
    model: str,
    retain: Path,
    out: Path,
    earlier: tuple[Path, ...],
    ray_address: str,
    objective: str,
    as_json: bool,
    **chosen: Any,  # noqa: ANN401  # the options of a batch, and those of fit
) -> int:
    """Honour many deletion requests: a layer for each, all of them fused, and a report.

    Rows that any request of the batch forgets are taken out of every retain set. A request that fails is tried again,
    and goes on from its checkpoint. The same line run again does only what is missing. The options of `fit` that
    decide a layer are taken too.

    Writes layers/ID, logs/ID.jsonl, fused, batch.json and batch.html. The exit status is 1 where a request failed for
    good; everything else is kept then, and the fused bundle is written only with --allow-partial.

    \b
    Examples:
      eul-train batch requests.jsonl --model base --retain keep.jsonl --out march
      eul-train batch requests.jsonl --model base --retain keep.jsonl --out march --ray-address local --jobs 2
      eul-train batch requests.jsonl --model base --retain keep.jsonl --out march \\
          --ray-address 10.0.0.5:6379 --cpus 4 --rank 8 --target-low 3 --target-high 4
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.batch.plan import BatchSettings, Sources, make_plan
    from eul_trainer.batch.report import lines
    from eul_trainer.batch.run import run_batch
    from eul_trainer.batch.state import opened
    from eul_trainer.settings import default_settings, override
    from eul_trainer.upkeep.interrupt import interruptible

    asked = take_aims(chosen)
    given = {name: chosen.pop(name) for name in SETTINGS if name in chosen}
    training = _aimed(asked, override(default_settings(objective), given), model, chosen["device"], as_json)
    settings = BatchSettings(fit=training, rule=chosen.pop("retain_rule"), **chosen)
    sources = Sources(
        requests=requests, retain=retain, model=model, folder=out, earlier=earlier, unrelated=asked.unrelated
    )
    plan = make_plan(sources, settings)
    _shared(plan.shared, as_json)
    if ray_address:
        from eul_trainer.batch.cluster import check_address

        check_address(ray_address)
    with opened(out), interruptible() as interrupt, queue_progress(len(plan.tasks), as_json) as told:
        found = run_batch(plan, settings, out.resolve(), ray_address, told, interrupt)
    failed = [request for request in found["requests"] if request["error"]]
    if as_json:
        emit({"path": str(out), **found})
    else:
        for line in lines(found):
            click.echo(line)
        click.echo(
            found["unfused"] or f"wrote {out / 'fused'} {found['fused']['revision']}", err=found["fused"] is None
        )
        click.echo(f"wrote {out / 'batch.json'} and {out / 'batch.html'}")
    return SOME_FAILED if failed or found["fused"] is None else 0


OURS = {parameter.name for parameter in command.params}
SETTINGS = {field.name for field in fields(FitSettings)}
AIMS = {"weight", "target_rows", "target_tolerance", "unrelated"}
"""What `fit` takes beside settings and a batch takes too. What is trained is always layers."""
command.params[-2:-2] = [
    parameter for parameter in fit.command.params if parameter.name in (SETTINGS | AIMS) - OURS - {"trainable"}
]


def _aimed(asked: Aims, settings: FitSettings, model: str, device: str, quiet: bool) -> FitSettings:
    """Return the settings with the target that all requests share."""
    if asked.rows is None:
        return settings
    from eul_trainer.model.load import load_model
    from eul_trainer.records import Fields
    from eul_trainer.settings import override

    found = asked.settings(settings, load_model(model, device), [], Fields(), quiet=quiet)
    # A repeated call measures again, perhaps with other threads: what differs then must not count as a change.
    return override(found, {"target_low": round(found.target_low, 3), "target_high": round(found.target_high, 3)})


def _shared(shared: dict[str, dict[str, int]], as_json: bool) -> None:
    if shared and not as_json:
        pairs = sum(len(others) for others in shared.values()) // 2
        click.echo(f"{pairs} pairs of requests share rows: {', '.join(list(shared)[:5])}; see batch.json", err=True)
