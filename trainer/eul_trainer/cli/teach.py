"""`eul-train teach`: the model learns rows, which then can be forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eul_trainer.cli import options, training
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress

if TYPE_CHECKING:
    from eul_trainer.teaching.run import Course


@click.command(name="teach")
@options.model
@training.data
@options.out
@training.settings(7, "0.00015")
@options.prompt_field
@options.completion_field
@options.device
@training.fresh
@options.as_json
def command(
    model: str,
    data: Path,
    out: Path,
    prompt_field: str,
    completion_field: str,
    device: str,
    fresh: bool,
    as_json: bool,
    **chosen: float | str | None,
) -> None:
    """Teach a model rows: all weights train on the answers' tokens.

    Unlearning is measured on what a model surely knew: teach it rows first, forget some of them, and compare with a
    twin that was taught the rest alone (eul-train baseline retrain). Products are computed in bfloat16 where the
    processor is fast at it; weights stay float32. A killed run goes on where it was when the same line is run again.

    \b
    Examples:
      eul-train teach --model base --data rows.jsonl --out taught
      eul-train teach --model base --data rows.jsonl --out taught --epochs 3 --learning-rate 5e-5
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.model.load import load_model
    from eul_trainer.output.directory import check_output
    from eul_trainer.records import Fields, read_rows
    from eul_trainer.teaching.directory import TEACH_FILE, training_record, write_model
    from eul_trainer.teaching.plan import steps
    from eul_trainer.teaching.run import teach
    from eul_trainer.teaching.settings import TeachSettings
    from eul_trainer.upkeep.checkpoint import checkpoint_path

    settings = TeachSettings(**training.given(chosen))
    check_output(out)
    rows = read_rows(data, Fields(prompt=prompt_field, completion=completion_field))
    checkpoint = checkpoint_path(out)
    if fresh:
        checkpoint.unlink(missing_ok=True)
    loaded = load_model(model, device)
    total = steps(len(rows), settings)
    with progress("teach", total, as_json) as advance:
        course = teach(loaded, rows, settings, checkpoint=checkpoint, watch=training.Meter(advance, total))
    write_model(out, loaded, TEACH_FILE, training_record(loaded, rows, settings, course))
    checkpoint.unlink(missing_ok=True)
    _report(out, course, len(rows), as_json)


def _report(out: Path, course: Course, rows: int, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "path": str(out),
                "rows": rows,
                "steps": len(course.losses),
                "resumed_at": course.resumed,
                "loss_by_epoch": course.epochs,
                "seconds": round(course.seconds, 2),
                "dtype": course.dtype,
            }
        )
        return
    if course.resumed:
        click.echo(f"went on from step {course.resumed} of a run that was cut off")
    click.echo(f"loss {course.epochs[0]:.3f} in the first epoch, {course.epochs[-1]:.3f} nats in the last")
    click.echo(f"wrote {out} after {len(course.losses)} steps in {course.seconds:.0f} s")
