"""`eul-train report`: the pages of an evaluation, with attacks and sequences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from eul_serve.errors import InputError
from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.output.directory import check_output, write_files


@click.command(name="report")
@click.option("--evaluation", required=True, type=options.PATH, metavar="DIR", help="What `eval` wrote.")
@options.attacks
@click.option(
    "--sequence",
    "sequences",
    multiple=True,
    type=options.PATH,
    metavar="DIR",
    help="What `sequence` wrote; may be given more than once.",
)
@options.out
@options.as_json
def command(evaluation: Path, attacks: tuple[Path, ...], sequences: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Make the pages of an evaluation once more, with attacks and sequences: report.html, report.md and report.json.

    The HTML is one file without scripts that loads nothing, and shows answers. Markdown and JSON hold no row.

    \b
    Examples:
      eul-train report --evaluation report --attack attacks/prompts --attack attacks/choosing --out pages
      eul-train report --evaluation report --sequence sequence --out pages
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.evaluation.report import render_report
    from eul_trainer.evaluation.written import METRICS, read_written

    check_output(out)
    metrics = read_written(evaluation / METRICS)
    pages = render_report(
        metrics,
        [result for path in attacks for result in _attack(path, metrics)],
        [_sequence(path, metrics) for path in sequences],
    )
    write_files(out, pages)
    if as_json:
        emit({"path": str(out), "files": list(pages)})
        return
    click.echo(f"wrote {', '.join(str(out / name) for name in pages)}")


def _attack(path: Path, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what an attack found, if it was on the bundles that were evaluated."""
    from eul_trainer.evaluation.written import ATTACK, read_written

    found = read_written(path / ATTACK)
    for name, revision in found["systems"].items():
        known = metrics["systems"].get(name)
        if known and revision != known:
            raise InputError(
                f"--attack {str(path)!r}: {name} is {revision} there and {known} in the evaluation; attack it again"
            )
    results: list[dict[str, Any]] = found["attacks"]
    return results


def _sequence(path: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sequence, if it is of the base model that was evaluated."""
    from eul_trainer.evaluation.written import SEQUENCE, read_written

    found = read_written(path / SEQUENCE)
    if found["base"] != metrics["base"]:
        raise InputError(
            f"--sequence {str(path)!r}: base model {found['base']}, but the evaluation is of {metrics['base']}; "
            "give a sequence of the same base model"
        )
    return found
