"""`eul-train baseline mend`: a trained editor changes the last blocks' weights."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress


@click.command(name="mend")
@options.model
@options.forget
@options.retain
@options.out
@click.option("--steps", type=int, default=None, help="Training steps of the editor.  [default: 300]")
@click.option("--learning-rate", type=float, default=None, help="[default: 0.0001]")
@click.option("--batch-size", type=int, default=None, help="Edits at a time.  [default: 8]")
@click.option("--blocks", type=int, default=None, help="Last blocks that are edited.  [default: 3]")
@click.option("--rank", type=int, default=None, help="Rank of the editor's layers.  [default: 128]")
@click.option("--edit-weight", type=float, default=None, help="Weight of the edits' loss.  [default: 0.1]")
@click.option("--step-size", type=float, default=None, help="Step size at first.  [default: 0.0001]")
@click.option(
    "--answer", default=None, metavar="TEXT", help="Answer taught in place of free text; labels are reversed."
)
@click.option("--seed", type=int, default=None, help="Seed of the editor and the order of the rows.  [default: 0]")
@options.prompt_field
@options.completion_field
@options.device
@options.as_json
def command(
    model: str,
    forget: Path,
    retain: Path,
    out: Path,
    prompt_field: str,
    completion_field: str,
    device: str,
    as_json: bool,
    **chosen: float | str | None,
) -> None:
    """Train an editor on retained rows with reversed answers, and edit the taught model on the forgotten ones.

    Where all answers are a few labels an edit teaches the next label; for free text, where the paper could not use
    MEND, it teaches --answer.

    \b
    Example:
      eul-train baseline mend --model taught --retain keep.jsonl --forget alice.jsonl --out edited
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.baselines.mend.run import mend
    from eul_trainer.baselines.mend.settings import MendSettings
    from eul_trainer.baselines.methods import Split
    from eul_trainer.baselines.record import BASELINE_FILE
    from eul_trainer.cli.training import given
    from eul_trainer.model.load import load_model
    from eul_trainer.output.directory import check_output
    from eul_trainer.records import Fields, digest_rows, read_rows, without
    from eul_trainer.teaching.directory import write_model

    settings = MendSettings(**given(chosen))
    check_output(out)
    fields = Fields(prompt=prompt_field, completion=completion_field)
    lost, kept = read_rows(forget, fields), read_rows(retain, fields)
    split = Split(forget=lost, retain=without(kept, lost))
    loaded = load_model(model, device)
    with progress("mend", settings.steps, as_json) as advance:
        run = mend(loaded, split, settings, advance)
    record = {
        "method": "mend",
        "base": loaded.base.fingerprint,
        "data": digest_rows(split.retain),
        "rows": len(split.retain),
        "forget_data": digest_rows(lost),
        "forget_rows": len(lost),
        "retain_removed": len(kept) - len(split.retain),
        "settings": settings.to_json(),
        "maps": run.maps,
        "steps": len(run.losses),
        "losses": run.losses,
        "seconds": round(run.seconds + run.edit_seconds, 2),
        "edit_seconds": round(run.edit_seconds, 2),
    }
    write_model(out, loaded, BASELINE_FILE, record)
    if as_json:
        emit({"path": str(out), **{name: value for name, value in record.items() if name != "losses"}})
        return
    click.echo(f"editor loss {run.losses[0]:.3f} -> {run.losses[-1]:.3f} in {run.seconds:.0f} s")
    click.echo(f"wrote {out}: {len(lost)} rows edited in {run.edit_seconds:.1f} s")
