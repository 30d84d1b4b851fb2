"""`eul-train batch`: a queue of deletion requests becomes layers, one fused bundle and a report."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli import fit, options
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import Advance, progress
from eul_trainer.settings import FitSettings

if TYPE_CHECKING:
    from eul_trainer.batch.queue import Standing, Watch
    from eul_trainer.batch.run import Progress

SOME_FAILED = 1
"""Exit status where a request failed for good, or the layers could not be fused."""


@click.command(name="batch")
@click.argument("requests", type=options.PATH, metavar="REQUESTS.jsonl")
@options.model
@options.retain
@click.option("--out", required=True, type=options.PATH, metavar="DIR", help="Directory to write, or to go on in.")
@click.option(
    "--earlier",
    multiple=True,
    type=options.PATH,
    metavar="FILE",
    help="Requests that were honoured before this batch; may be given again.",
)
@click.option(
    "--ray-address",
    default="",
    metavar="ADDRESS|local",
    help="Ray cluster, as HOST:6379; local starts one here. Without it: in this process, one after another.",
)
@click.option("--jobs", type=int, default=None, help="Requests at once.  [default: as the cluster has processors]")
@click.option("--cpus", type=int, default=1, show_default=True, help="Processors of the cluster for each request.")
@click.option("--retries", type=int, default=2, show_default=True, help="Further attempts at a request that failed.")
@click.option(
    "--retain-rule",
    type=click.Choice(["all", "earlier"]),
    default="all",
    show_default=True,
    help="Whose rows leave a retain set: those of the whole batch, or of the request and those before it.",
)
@click.option(
    "--fuse-method", default="concat", show_default=True, metavar="METHOD", help="How layers are fused, as by fuse."
)
@click.option("--allow-partial", is_flag=True, help="Fuse what there is although a request failed.")
@options.device
@options.as_json
def command(
    requests: Path,
    model: str,
    retain: Path,
    out: Path,
    earlier: tuple[Path, ...],
    ray_address: str,
    objective: str,
    as_json: bool,
    **chosen: Any,  # noqa: ANN401  # the options of a batch, and those of fit
) -> int:
    """Honour many deletion requests: a layer for each, all of them fused, and a report.

    Rows that any request of the batch forgets are taken out of every retain set. A request that fails is tried again,
    and goes on from its checkpoint. The same line run again does only what is missing. The options of `fit` that
    decide a layer are taken too.

    Writes layers/ID, logs/ID.jsonl, fused, batch.json and batch.html. The exit status is 1 where a request failed for
    good; everything else is kept then, and the fused bundle is written only with --allow-partial.

    \b
    Examples:
      eul-train batch requests.jsonl --model base --retain keep.jsonl --out march
      eul-train batch requests.jsonl --model base --retain keep.jsonl --out march --ray-address local --jobs 2
      eul-train batch requests.jsonl --model base --retain keep.jsonl --out march \\
          --ray-address 10.0.0.5:6379 --cpus 4 --rank 8 --target-low 3 --target-high 4
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.batch.plan import BatchSettings, Sources, make_plan
    from eul_trainer.batch.report import lines
    from eul_trainer.batch.run import run_batch
    from eul_trainer.batch.state import opened
    from eul_trainer.settings import default_settings, override

    training = {name: chosen.pop(name) for name in FIT_OPTIONS if name in chosen}
    settings = BatchSettings(
        fit=override(default_settings(objective), training), rule=chosen.pop("retain_rule"), **chosen
    )
    plan = make_plan(Sources(requests=requests, retain=retain, model=model, folder=out, earlier=earlier), settings)
    _shared(plan.shared, as_json)
    if ray_address:
        from eul_trainer.batch.cluster import check_address

        check_address(ray_address)
    with opened(out), _queue(as_json, len(plan.tasks)) as told:
        found = run_batch(plan, settings, out.resolve(), ray_address, told)
    failed = [request for request in found["requests"] if request["error"]]
    if as_json:
        emit({"path": str(out), **found})
    else:
        for line in lines(found):
            click.echo(line)
        click.echo(
            found["unfused"] or f"wrote {out / 'fused'} {found['fused']['revision']}", err=found["fused"] is None
        )
        click.echo(f"wrote {out / 'batch.json'} and {out / 'batch.html'}")
    return SOME_FAILED if failed or found["fused"] is None else 0


OURS = {parameter.name for parameter in command.params}
FIT_OPTIONS = [field.name for field in fields(FitSettings) if field.name != "trainable"]
"""Options of `fit` that decide a layer, and so belong to a batch as well; what it trains is always layers."""
command.params[-2:-2] = [
    parameter for parameter in fit.command.params if parameter.name in FIT_OPTIONS and parameter.name not in OURS
]


def _shared(shared: dict[str, dict[str, int]], as_json: bool) -> None:
    if shared and not as_json:
        pairs = sum(len(others) for others in shared.values()) // 2
        click.echo(f"{pairs} pairs of requests share rows: {', '.join(list(shared)[:5])}; see batch.json", err=True)


@contextmanager
def _queue(as_json: bool, total: int) -> Iterator[Progress]:
    """Show the queue on stderr, and how to go on where it is interrupted."""
    from eul_trainer.batch.run import Progress

    seen: list[Standing] = []

    with progress("batch", total, as_json) as advance:

        def begin(standing: Standing, done: int) -> Watch:
            seen.append(standing)
            return _Teller(standing, done, advance)

        try:
            yield Progress(begin=begin, say=lambda text: None if as_json else click.echo(text, err=True))
        except BaseException as error:
            if (
                seen
                and not as_json
                and (isinstance(error, KeyboardInterrupt) or getattr(error, "exit_status", 0) > 127)
            ):
                click.echo(
                    f"stopped with {len(seen[0].finished)} of {seen[0].total} done; the same line goes on", err=True
                )
            raise


class _Teller:
    """Says how far the queue is: at every ending, and now and then in between."""

    def __init__(self, standing: Standing, done: int, advance: Advance) -> None:
        self._standing, self._done, self._advance = standing, done, advance
        self._started = self._told = time.perf_counter()
        self._ended = -1
        self._pause = 1.0 if sys.stderr.isatty() else 30.0

    def __call__(self) -> None:
        now, ended = time.perf_counter(), len(self._standing.finished)
        if ended == self._ended and now - self._told < self._pause:
            return
        self._told, self._ended = now, ended
        self._advance(self._done + ended, _words(self._standing, now - self._started))


def _words(standing: Standing, seconds: float) -> str:
    from eul_trainer.batch.journal import last_step

    ended, total = len(standing.finished), standing.total
    words = [f"{standing.failed} failed"] if standing.failed else []
    words += [f"{task.id} step {last_step(task.log)}" for task in list(standing.running.values())[:3]]
    if ended and ended < total:
        words.append(f"about {seconds / ended * (total - ended) / 60:.1f} min left")
    return ", ".join(words)
