"""`eul-train data samsum`: speakers whose conversations are to be forgotten."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli.data.job import Job
from eul_trainer.cli.data.options import common, limit, settings, share, source


@click.command(name="samsum")
@source
@click.option("--speakers", default=None, metavar="A,B", help="The speakers; chosen by share if not given.")
@share
@click.option(
    "--requests", type=int, default=1, show_default=True, help="Requests of that share, no speaker in common."
)
@click.option("--template", default=None, metavar="TEXT", help="The prompt; {text} stands for the conversation.")
@click.option("--max-words", type=int, default=None, help="Leave out longer conversations.  [default: none]")
@limit
@common
def command(
    source: Path,
    speakers: str | None,
    template: str | None,
    job: Job,
    **chosen: float | None,
) -> None:
    """Choose speakers whose conversations are all to be forgotten; the answer is the summary.

    --from is the zip of Arrow streams as published; it is read where it lies, and nothing is unpacked to disk.
    Speakers chosen by share are the fewest that reach it. The data knows first names only.

    \b
    Examples:
      eul-train data samsum --from samsum.zip --speakers Hannah,Igor --out data
      eul-train data samsum --from samsum.zip --share 0.01 --limit 200 --max-words 100 --out small
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.data.samsum import TEMPLATE, SamsumSettings, build_samsum

    names = tuple(name.strip() for name in (speakers or "").split(",") if name.strip())
    more = {"speakers": names, "template": TEMPLATE if template is None else template}
    with job.watching() as watch:
        dataset = build_samsum(source, settings(SamsumSettings, {**chosen, **more}), watch)
    job.finish(dataset)
