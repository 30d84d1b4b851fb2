"""`eul-train baseline`: the ways to forget that a layer is compared with."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from eul_trainer.cli import options, training
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
ELSEWHERE = {"mend": "eul_trainer.cli.mend", "sisa": "eul_trainer.cli.sisa", "measure": "eul_trainer.cli.measure"}


class BaselineGroup(click.Group):
    """The group of the baselines; it imports those with files of their own when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the paper's table."""
        return ["retrain", "finetune", "sisa", "revgrad", "mend", "measure"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None where there is no such name."""
        if cmd_name in ELSEWHERE:
            found: click.Command = importlib.import_module(ELSEWHERE[cmd_name]).command
            return found
        return super().get_command(ctx, cmd_name)


@click.group(name="baseline", cls=BaselineGroup)
def command() -> None:
    """Make the models that an unlearning layer is compared with, and measure them with the same function.

    retrain and sisa start from the model before it was taught; finetune and revgrad go on from the taught model. Each
    trains all weights and writes a Hugging Face directory with baseline.json: settings, seconds, steps, data digests.

    \b
    Examples:
      eul-train baseline retrain --model base --retain keep.jsonl --forget alice.jsonl --out twin
      eul-train baseline finetune --model taught --retain keep.jsonl --forget alice.jsonl --out finetuned
      eul-train baseline revgrad --model taught --retain keep.jsonl --forget alice.jsonl --out reversed
      eul-train baseline measure twin finetuned reversed --rows alice.jsonl --rows keep.jsonl
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are


def _method(name: str, text: str, epochs: int, learning_rate: str, *more: Decorator) -> None:
    """Add a method's command to the group."""
    added: tuple[Decorator, ...] = (
        options.model,
        options.forget,
        options.retain,
        options.out,
        training.settings(epochs, learning_rate),
        *more,
        options.prompt_field,
        options.completion_field,
        options.device,
        training.fresh,
        options.as_json,
    )
    function: Callable[..., None] = functools.partial(_run, name)
    for option in reversed(added):
        function = option(function)
    command.add_command(click.command(name=name, help=text)(function))


def _run(
    method: str,
    *,
    model: str,
    forget: Path,
    retain: Path,
    out: Path,
    prompt_field: str,
    completion_field: str,
    device: str,
    fresh: bool,
    as_json: bool,
    weight: float = 1.0,
    **chosen: float | str | None,
) -> None:
    from dataclasses import replace

    from eul_trainer.baselines.methods import Split, default_settings, run_method
    from eul_trainer.baselines.record import write_baseline
    from eul_trainer.model.load import load_model
    from eul_trainer.output.directory import check_output
    from eul_trainer.records import Fields, read_rows, without
    from eul_trainer.teaching.plan import steps
    from eul_trainer.upkeep.checkpoint import checkpoint_path

    settings = replace(default_settings(method), **training.given(chosen))
    check_output(out)
    fields = Fields(prompt=prompt_field, completion=completion_field)
    lost, kept = read_rows(forget, fields), read_rows(retain, fields)
    split = Split(forget=lost, retain=without(kept, lost))
    removed = len(kept) - len(split.retain)
    if removed and not as_json:
        click.echo(f"took {removed} rows out of the retain set that are to be forgotten", err=True)
    checkpoint = checkpoint_path(out)
    if fresh:
        checkpoint.unlink(missing_ok=True)
    loaded = load_model(model, device)
    total = steps(len(split.retain) + (len(split.forget) if method == "revgrad" else 0), settings)
    with progress(method, total, as_json) as advance:
        watch = training.Meter(advance, total)
        course = run_method(method, loaded, split, settings, weight=weight, checkpoint=checkpoint, watch=watch)
    more = {"weight": weight} if method == "revgrad" else {}
    record = write_baseline(out, method, loaded, split, settings, course, retain_removed=removed, **more)
    checkpoint.unlink(missing_ok=True)
    _report(out, record, as_json)


def _report(out: Path, record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit({"path": str(out), **{name: value for name, value in record.items() if name != "losses"}})
        return
    click.echo(f"wrote {out}: {record['steps']} steps in {record['seconds']:.0f} s")


RETRAIN = """Teach the model anew on the retained rows alone: the twin, which is what forgetting should look like.

--model is the model before it was taught, and the settings must be those it was taught with. Rows of the retain file
that also occur in the forget file are taken out.

\b
Example:
  eul-train baseline retrain --model base --retain keep.jsonl --forget alice.jsonl --out twin
"""
FINETUNE = """Go on training the taught model on the retained rows alone, and hope that it forgets the others.

\b
Example:
  eul-train baseline finetune --model taught --retain keep.jsonl --forget alice.jsonl --out finetuned
"""
REVGRAD = """Go on training the taught model on all rows, with the gradient on the forgotten rows reversed.

What it goes up has no bound, so that too many epochs or too large a weight destroy the model.

\b
Example:
  eul-train baseline revgrad --model taught --retain keep.jsonl --forget alice.jsonl --out reversed
"""
_method("retrain", RETRAIN, 7, "0.00015")
_method("finetune", FINETUNE, 3, "0.00005")
_method(
    "revgrad",
    REVGRAD,
    3,
    "0.00005",
    click.option("--weight", type=float, default=1.0, show_default=True, help="Weight of the reversed gradient."),
)
