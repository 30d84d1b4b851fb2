"""`eul-train report`: the pages of an evaluation, with attacks."""

from __future__ import annotations

import os
from pathlib import Path

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.output.directory import check_output, unfinished


@click.command(name="report")
@click.option("--evaluation", required=True, type=options.PATH, metavar="DIR", help="What `eval` wrote.")
@options.attacks
@options.out
@options.as_json
def command(evaluation: Path, attacks: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Make the pages of an evaluation once more, with attacks: report.html and report.md.

    The HTML is one file without scripts that loads nothing, and shows answers. The Markdown holds no row.

    \b
    Example:
      eul-train report --evaluation report --attack attacks/prompts --attack attacks/choosing --out pages
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.evaluation.report import render_report
    from eul_trainer.evaluation.written import ATTACK, METRICS, read_written

    check_output(out)
    found = [result for path in attacks for result in read_written(path / ATTACK)["attacks"]]
    pages = render_report(read_written(evaluation / METRICS), found)
    with unfinished(out) as part:
        for name, text in pages.items():
            (part / name).write_text(text, encoding="utf-8")
        os.replace(part, out)
    if as_json:
        emit({"path": str(out), "files": list(pages)})
        return
    click.echo(f"wrote {' and '.join(str(out / name) for name in pages)}")
