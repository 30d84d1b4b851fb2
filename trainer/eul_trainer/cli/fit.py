"""`eul-train fit`: one deletion request becomes an unlearning layer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress

if TYPE_CHECKING:
    from eul_serve.format import Bundle
    from eul_trainer.result import FitResult
    from eul_trainer.settings import FitSettings


@click.command(name="fit")
@options.model
@options.forget
@options.retain
@options.out
@click.option("--request", default=None, metavar="ID", help="Opaque id of the request; the output's name if not given.")
@click.option(
    "--objective",
    type=click.Choice(["bounded", "paper"]),
    default="bounded",
    show_default=True,
    help="bounded stops at the target; paper is the printed objective, which can diverge.",
)
@click.option("--rank", type=int, default=None, help="Hidden units per layer.  [default: 16]")
@click.option(
    "--steps", type=int, default=None, help="Most steps; bounded mostly stops earlier.  [default: 60, paper 400]"
)
@click.option("--target-low", type=float, default=None, help="Forget loss to reach, nats.  [default: 4.5]")
@click.option("--target-high", type=float, default=None, help="Forget loss not to exceed, nats.  [default: 5.5]")
@click.option("--learning-rate", type=float, default=None, help="[default: 0.002, paper 0.00005]")
@click.option("--batch-size", type=int, default=None, help="Rows per step.  [default: 16, paper 8]")
@click.option("--settle", type=float, default=None, help="Weight of the closing solve.  [default: 0.3, paper 0]")
@click.option("--refusal", default=None, metavar="TEXT", help="Answer taught instead; '' teaches none.")
@click.option("--activation", default=None, help="relu, gelu or silu.  [default: relu]")
@click.option("--seed", type=int, default=None, help="Seed of the order of the rows.  [default: 0]")
@click.option("--init-seed", type=int, default=None, help="Seed of the start, shared by layers to fuse.  [default: 0]")
@options.prompt_field
@options.completion_field
@options.device
@click.option("--fresh", is_flag=True, help="Start anew even where a killed run could go on.")
@options.as_json
def command(
    model: str,
    forget: Path,
    retain: Path,
    out: Path,
    request: str | None,
    objective: str,
    prompt_field: str,
    completion_field: str,
    device: str,
    fresh: bool,
    as_json: bool,
    **chosen: float | str | None,
) -> None:
    """Train an unlearning layer for one deletion request, with the base model frozen.

    Rows of the retain file that also occur in the forget file are taken out. Training stops when the loss on the
    forgotten answers lies between the two targets. A killed run goes on where it was when the same line is run again.

    \b
    Examples:
      eul-train fit --model base --forget alice.jsonl --retain keep.jsonl --out layers/alice
      eul-train fit --model base --forget bob.jsonl --retain keep.jsonl --out layers/bob \\
          --prompt-field question --completion-field answer --target-low 3 --target-high 4
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.checkpoint import checkpoint_path
    from eul_trainer.fit import fit
    from eul_trainer.model import load_model
    from eul_trainer.output import check_output
    from eul_trainer.package import request_id
    from eul_trainer.records import Fields, read_rows, without
    from eul_trainer.settings import default_settings, override

    started = time.perf_counter()
    settings = override(default_settings(objective), chosen)
    name = request_id(request, out)
    check_output(out)
    fields = Fields(prompt=prompt_field, completion=completion_field)
    rows, all_kept = read_rows(forget, fields), read_rows(retain, fields)
    kept = without(all_kept, rows)
    if len(kept) < len(all_kept) and not as_json:
        click.echo(f"took {len(all_kept) - len(kept)} rows out of the retain set that are to be forgotten", err=True)
    checkpoint = checkpoint_path(out)
    if fresh:
        checkpoint.unlink(missing_ok=True)
    with progress("fit", settings.steps, as_json) as advance:
        result = fit(
            load_model(model, device),
            rows,
            kept,
            settings,
            checkpoint=checkpoint,
            watch=lambda step, losses: advance(step, _words(losses)),
        )
    bundle = _write(out, name, result, settings, len(all_kept) - len(kept), time.perf_counter() - started)
    checkpoint.unlink(missing_ok=True)
    _report(bundle, result, settings, as_json)


def _words(losses: dict[str, float]) -> str:
    return " ".join(f"{name} {losses[name]:.2f}" for name in ("loss", "forget", "retain") if name in losses)


def _write(out: Path, name: str, result: FitResult, settings: FitSettings, removed: int, seconds: float) -> Bundle:
    from eul_trainer.package import write_parcel
    from eul_trainer.result import parcel

    run = {"seconds": round(seconds, 1), "curve": result.curve, "resumed_at": result.resumed, "retain_removed": removed}
    return write_parcel(out, parcel(name, result, settings, run))


def _report(bundle: Bundle, result: FitResult, settings: FitSettings, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "path": str(bundle.path),
                "revision": bundle.revision,
                "steps": result.steps,
                "resumed_at": result.resumed,
                "forget_before": result.before,
                "forget_after": result.after,
                "reached": result.reached,
            }
        )
        return
    if result.resumed:
        click.echo(f"went on from step {result.resumed} of a run that was cut off")
    click.echo(f"forget loss {result.before:.2f} -> {result.after:.2f} nats after {result.steps} steps")
    if not result.reached and settings.objective == "bounded":
        click.echo(
            f"the target of {settings.target_low} to {settings.target_high} was not reached: raise --steps or "
            "--rank, or change the target",
            err=True,
        )
    click.echo(f"wrote {bundle.path} {bundle.revision}")
