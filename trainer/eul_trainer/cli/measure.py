"""`eul-train baseline measure`: any systems on any rows, by one function."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress


@click.command(name="measure")
@click.argument("systems", nargs=-1, required=True, metavar="SYSTEM...")
@click.option(
    "--rows",
    "files",
    multiple=True,
    required=True,
    type=options.PATH,
    metavar="FILE",
    help="JSON lines to measure on; may be given more than once.",
)
@options.optional_model
@options.prompt_field
@options.completion_field
@options.device
@options.as_json
def command(
    systems: tuple[str, ...],
    files: tuple[Path, ...],
    model: str | None,
    prompt_field: str,
    completion_field: str,
    device: str,
    as_json: bool,
) -> None:
    """Measure models, SISA trainings and bundles: mean answer loss in nats and token accuracy on each file.

    A system is a model directory, a SISA training, or a bundle, whose base model --model names.

    \b
    Example:
      eul-train baseline measure taught twin sisa layers/alice --model taught --rows alice.jsonl --rows keep.jsonl
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.baselines.evaluated import mean_scores, open_system
    from eul_trainer.records import Fields, read_rows

    fields = Fields(prompt=prompt_field, completion=completion_field)
    sets = {str(path): read_rows(path, fields) for path in files}
    found: dict[str, dict[str, dict[str, float]]] = {}
    with progress("measure", len(systems) * len(sets), as_json) as advance:
        for name in systems:
            system = open_system(name, model, device)
            found[name] = {}
            for path, rows in sets.items():
                found[name][path] = mean_scores(system, rows)
                advance(sum(map(len, found.values())), f"{name}, {path}")
    if as_json:
        emit({"systems": found})
        return
    for name, results in found.items():
        for path, numbers in results.items():
            click.echo(f"{name}: {path}: loss {numbers['loss']:.3f}, token accuracy {numbers['accuracy']:.3f}")
