"""`eul-train baseline sisa`: shards and slices, so that a deletion retrains little."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eul_trainer.cli import options, training
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress

if TYPE_CHECKING:
    from eul_trainer.baselines.sisa.run import SisaRun
    from eul_trainer.baselines.sisa.state import SisaState
    from eul_trainer.model.load import LoadedModel

_state = click.option("--state", required=True, type=options.PATH, metavar="DIR", help="Directory that train wrote.")
_model = click.option(
    "--model", default=None, metavar="DIR", help="The model before teaching, if it is not where it was."
)


@click.group(name="sisa")
def command() -> None:
    """Teach shards of the rows slice by slice, and delete rows by going back to the checkpoint before them.

    Each shard is a model of its own, and all answer together by the mean of their probabilities. After each slice its
    weights are kept as a difference in bfloat16 (269 MB for SmolLM2-135M). A deletion trains only the shards that hold
    a deleted row, from the checkpoint before its slice; the result is that of a training without it, bit for bit.

    \b
    Examples:
      eul-train baseline sisa train --model base --data rows.jsonl --out sisa
      eul-train baseline sisa delete --state sisa --rows alice.jsonl
      eul-train baseline measure sisa --rows alice.jsonl --rows keep.jsonl
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are


@command.command(name="train")
@options.model
@training.data
@options.out
@click.option("--shards", type=int, default=4, show_default=True, help="Models that share the rows.")
@click.option("--slices", type=int, default=4, show_default=True, help="Parts of a shard, each with a checkpoint.")
@training.settings(7, "0.00015")
@options.prompt_field
@options.completion_field
@options.device
@options.as_json
def train(
    model: str,
    data: Path,
    out: Path,
    shards: int,
    slices: int,
    prompt_field: str,
    completion_field: str,
    device: str,
    as_json: bool,
    **chosen: float | str | None,
) -> None:
    """Teach all shards. --epochs are those of a plain training: each slice's stage takes its share of them.

    \b
    Example:
      eul-train baseline sisa train --model base --data rows.jsonl --out sisa --shards 2 --slices 5
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.baselines.sisa.run import start
    from eul_trainer.baselines.sisa.settings import SisaSettings
    from eul_trainer.model.load import load_model
    from eul_trainer.output.directory import check_output
    from eul_trainer.records import Fields, read_rows
    from eul_trainer.teaching.settings import TeachSettings

    settings = SisaSettings(shards=shards, slices=slices, teach=TeachSettings(**training.given(chosen)))
    check_output(out)
    rows = read_rows(data, Fields(prompt=prompt_field, completion=completion_field))
    loaded = load_model(model, device)
    _complete(out, start(out, loaded, rows, settings), loaded, as_json)


@command.command(name="delete")
@_state
@click.option("--rows", required=True, type=options.PATH, metavar="FILE", help="JSON lines to delete.")
@_model
@options.prompt_field
@options.completion_field
@options.device
@options.as_json
def delete(
    state: Path, rows: Path, model: str | None, prompt_field: str, completion_field: str, device: str, as_json: bool
) -> None:
    """Delete rows: out of the state first, then out of the shards that learned them.

    Checkpoints that know a deleted row are removed at the end. A killed deletion is finished by resume.

    \b
    Example:
      eul-train baseline sisa delete --state sisa --rows alice.jsonl
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.baselines.sisa.state import load_state, save_state
    from eul_trainer.model.load import load_model
    from eul_trainer.records import Fields, read_rows

    found = load_state(state)
    left = found.delete(read_rows(rows, Fields(prompt=prompt_field, completion=completion_field)))
    loaded = load_model(model or found.model, device)
    save_state(state, left)
    _complete(state, left, loaded, as_json)


@command.command(name="resume")
@_state
@_model
@options.device
@options.as_json
def resume(state: Path, model: str | None, device: str, as_json: bool) -> None:
    """Finish a training or a deletion that was killed: whatever checkpoint is missing is trained.

    \b
    Example:
      eul-train baseline sisa resume --state sisa
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.baselines.sisa.state import load_state
    from eul_trainer.model.load import load_model

    found = load_state(state)
    _complete(state, found, load_model(model or found.model, device), as_json)


def _complete(folder: Path, state: SisaState, loaded: LoadedModel, as_json: bool) -> None:
    from eul_trainer.baselines.sisa.run import complete, total_steps

    total = max(1, total_steps(folder, state, loaded))
    with progress("sisa", total, as_json) as advance:
        run = complete(folder, state, loaded, watch=training.Meter(advance, total))
    _report(folder, state, run, as_json)


def _report(folder: Path, state: SisaState, run: SisaRun, as_json: bool) -> None:
    if as_json:
        emit({"path": str(folder), "rows": len(state.rows), **run.to_json()})
        return
    for shard, first in run.restarts.items():
        click.echo(f"shard {shard}: trained from slice {first} on")
    size = sum(path.stat().st_size for path in (folder / "checkpoints").iterdir()) / 1e9
    click.echo(f"wrote {folder}: {len(state.rows)} rows, {run.steps} steps in {run.seconds:.0f} s, {size:.2f} GB")
