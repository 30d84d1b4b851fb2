"""`eul-train sweep`: one request trained at several settings, and the layer chosen that changes least."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress
from eul_trainer.cli.speed import speed
from eul_trainer.objectives import NAMES

if TYPE_CHECKING:
    from eul_trainer.sweep.choice import Outcome
    from eul_trainer.sweep.plan import Plan

VARIED = ("learning-rate=0.001,0.002,0.004", "strength=0.5,1,2")


@click.command(name="sweep")
@options.model
@options.forget
@options.retain
@options.out
@click.option(
    "--vary",
    multiple=True,
    default=VARIED,
    show_default=True,
    metavar="NAME=V1,V2",
    help="A setting of `fit`, strength, or weight.NAME, and its values; may be given again.",
)
@click.option(
    "--held-forget", type=options.PATH, default=None, metavar="FILE", help="Measure forgetting on these rows."
)
@click.option("--held-retain", type=options.PATH, default=None, metavar="FILE", help="Measure keeping on these rows.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Points trained side by side.")
@click.option(
    "--work", type=options.PATH, default=None, metavar="DIR", help="Where points are kept.  [default: OUT.sweep]"
)
@click.option("--request", default=None, metavar="ID", help="Opaque id of the request; the output's name if not given.")
@click.option("--objective", type=click.Choice(NAMES), default="bounded", show_default=True, help="As for fit.")
@click.option("--rank", type=int, default=None, help="Hidden units of a layer.  [default: 16]")
@click.option("--steps", type=int, default=None, help="Most steps of a point.  [default: 60]")
@click.option("--batch-size", type=int, default=None, help="Rows per step.  [default: 16]")
@click.option("--target-low", type=float, default=None, help="Forget loss to reach, nats.  [default: 4.0]")
@click.option("--target-high", type=float, default=None, help="Forget loss not to exceed, nats.  [default: 5.0]")
@click.option("--seed", type=int, default=None, help="Seed of the order of the rows.  [default: 0]")
@options.prompt_field
@options.completion_field
@options.device
@speed
@click.option("--checkpoint-every", type=int, default=8, show_default=True, help="Steps between two checkpoints.")
@click.option("--fresh", is_flag=True, help="Throw finished points away and start anew.")
@options.as_json
def command(
    model: str,
    forget: Path,
    retain: Path,
    out: Path,
    vary: tuple[str, ...],
    held_forget: Path | None,
    held_retain: Path | None,
    jobs: int,
    work: Path | None,
    request: str | None,
    objective: str,
    prompt_field: str,
    completion_field: str,
    device: str,
    checkpoint_every: int,
    fresh: bool,
    as_json: bool,
    **chosen: Any,  # noqa: ANN401  # the settings
) -> None:
    """Train one request at every point of a grid, and write the best layer.

    Losses are measured on held-out rows: those of --held-retain, or every fifth retain row, which is then not trained
    on; and those of --held-forget, such as paraphrases, or the forget rows themselves. Chosen is the point that changes
    the retained answers least among those whose forget loss lies inside of the target band, or else the one nearest to
    it. A killed sweep goes on when the same line is run again: finished points are kept.

    \b
    Examples:
      eul-train sweep --model base --forget alice.jsonl --retain keep.jsonl --out layers/alice
      eul-train sweep --model base --forget alice.jsonl --retain keep.jsonl --out layers/alice --jobs 2 \\
          --vary learning-rate=1e-3,2e-3 --vary rank=8,16 --vary weight.silence=300,600
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.output.directory import check_apart, check_output
    from eul_trainer.output.package import request_id
    from eul_trainer.settings import default_settings, override
    from eul_trainer.sweep.grid import parse_axis, points
    from eul_trainer.sweep.plan import Plan
    from eul_trainer.sweep.run import sweep
    from eul_trainer.upkeep.interrupt import interruptible

    check_output(out)
    plan = Plan(
        model=model,
        forget=str(forget),
        retain=str(retain),
        request=request_id(request, out),
        held_forget=str(held_forget) if held_forget else None,
        held_retain=str(held_retain) if held_retain else None,
        prompt_field=prompt_field,
        completion_field=completion_field,
        device=device,
        every=checkpoint_every,
        settings=override(default_settings(objective), chosen).to_json(),
        axes=dict(parse_axis(text) for text in vary),
    )
    folder = work or out.with_name(f"{out.name}.sweep")
    check_apart(out, folder, "--work")
    total = len(points(plan.fit, plan.axes))
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    with progress("sweep", total, as_json) as advance, interruptible() as interrupt:
        outcomes = sweep(folder, plan, jobs=jobs, interrupt=interrupt, told=advance)
    _finish(folder, out, plan, outcomes, as_json)


def _finish(folder: Path, out: Path, plan: Plan, outcomes: list[Outcome], as_json: bool) -> None:
    from eul_trainer.sweep.outcome import conclude

    result = conclude(folder, out, plan, outcomes)
    if as_json:
        emit(result)
        return
    click.echo((folder / "sweep.md").read_text(encoding="utf-8"), nl=False)
    click.echo(f"wrote {out} {result['revision']}; all points are in {folder}")
