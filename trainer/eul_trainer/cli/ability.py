"""`eul-train ability`: what bundles change of a model's general ability, by the lm-evaluation-harness."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import click

from eul_serve.errors import InputError
from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.output.directory import check_output, write_files


@click.command(name="ability")
@options.model
@options.bundles
@click.option(
    "--tasks", required=True, metavar="NAMES", help="Tasks, groups or tags of the harness, with commas between them."
)
@click.option("--task-folder", type=options.PATH, metavar="DIR", help="Folder with task files (YAML) of your own.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Most questions of a task; all unless given.")
@click.option(
    "--shots", type=click.IntRange(0), metavar="N", help="Examples before each question; the task's own unless given."
)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Questions of a batch.")
@click.option("--chat", is_flag=True, help="Put each question into the model's chat template.")
@options.out
@options.device
@options.as_json
def command(
    model: str,
    bundles: tuple[Path, ...],
    tasks: str,
    task_folder: Path | None,
    limit: int | None,
    shots: int | None,
    batch_size: int,
    chat: bool,
    out: Path,
    device: str,
    as_json: bool,
) -> None:
    """Measure what bundles change of a model's general ability.

    Runs tasks of the lm-evaluation-harness on the base model and with each bundle on, and writes ability.json with
    the harness's own numbers. It needs: pip install eul-serve[ability]. The data of the harness's tasks comes from the
    hub; a task of your own may name a file.

    \b
    Examples:
      eul-train ability --model base --bundle fused --tasks arc_easy,hellaswag --limit 200 --out ability
      eul-train ability --model base --bundle fused --tasks house --task-folder tasks --out ability
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.cli.asked import read_bundles
    from eul_trainer.evaluation.ability import AbilitySettings, find_tasks, measure_ability, table
    from eul_trainer.evaluation.systems import Systems
    from eul_trainer.model.load import load_model

    check_output(out)
    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    if not names:
        raise InputError(f"--tasks {tasks!r}: expected at least one name")
    settings = AbilitySettings(tasks=names, limit=limit, shots=shots, batch_size=batch_size, chat=chat)
    manager = find_tasks(settings, task_folder)
    found = read_bundles(model, bundles)
    systems = Systems(load_model(model, device), found)
    told = io.StringIO() if as_json else sys.stderr  # the harness prints its progress on both streams
    with redirect_stdout(told), redirect_stderr(told):
        record = measure_ability(systems, settings, manager)
    write_files(out, {"ability.json": json.dumps(record, indent=1) + "\n"})
    if as_json:
        emit({"path": str(out), **record})
    else:
        click.echo("\n".join(table(record)))
        click.echo(f"wrote {out / 'ability.json'}")
