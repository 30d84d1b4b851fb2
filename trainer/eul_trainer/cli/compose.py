"""`eul-train compose`: a bundle and a tenant's fine-tune as one revision."""

from __future__ import annotations

from dataclasses import asdict
from itertools import count
from pathlib import Path

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress


@click.command(name="compose")
@options.model
@click.option("--bundle", required=True, type=options.PATH, metavar="DIR", help="The bundle.")
@click.option("--adapter", required=True, type=options.PATH, metavar="DIR", help="The fine-tune: a LoRA of PEFT.")
@click.option(
    "--forget",
    "forget",
    multiple=True,
    required=True,
    type=options.PATH,
    metavar="FILE",
    help="JSON lines of a request that the bundle covers, one file for each, as they were given to fit.",
)
@options.optional_retain
@options.out
@click.option(
    "--limit",
    default=0.3,
    show_default=True,
    help="Most nats by which the fine-tune may lower a request's loss under the bundle.",
)
@click.option(
    "--retain-limit",
    default=0.1,
    show_default=True,
    help="Most nats by which the bundle may raise the fine-tune's loss on --retain.",
)
@options.prompt_field
@options.completion_field
@options.device
@options.as_json
def command(
    model: str,
    bundle: Path,
    adapter: Path,
    forget: tuple[Path, ...],
    retain: Path | None,
    out: Path,
    limit: float,
    retain_limit: float,
    prompt_field: str,
    completion_field: str,
    device: str,
    as_json: bool,
) -> None:
    """Put a tenant's LoRA beside a bundle, as one revision to publish and serve: eul serve --fine-tunes.

    A fine-tune can bring back what was forgotten. So the answer losses of every request's rows are measured first, with
    the bundle alone and with both; where the fine-tune brings back more than --limit, nothing is written and the exit
    status is 5.

    \b
    Example:
      eul-train compose --model base --bundle fused --adapter acme-lora --forget alice.jsonl --forget bob.jsonl \\
          --retain acme-test.jsonl --out acme
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.compose.compose import Limits, compose
    from eul_trainer.compose.recall import MODELS
    from eul_trainer.output.directory import check_output
    from eul_trainer.records import Fields, read_rows

    limits = Limits(brought_back=limit, disturbed=retain_limit)
    check_output(out)
    fields = Fields(prompt=prompt_field, completion=completion_field)
    sets = [read_rows(path, fields) for path in forget]
    kept = [] if retain is None else read_rows(retain, fields)
    parts = (len(sets) + bool(kept)) * MODELS
    with progress("measure", parts, as_json) as advance:
        done = count(1)
        made, found = compose(
            model, bundle, adapter, sets, kept, out, limits, device=device,
            tell=lambda under, rows: advance(next(done), f"{rows}, {under.replace('_', '-')}"),
        )  # fmt: skip
    if as_json:
        losses = {name: asdict(recall) for name, recall in found.items()}
        emit({"path": str(made.path), "revision": made.revision, "losses": losses})
        return
    for name, one in found.items():
        click.echo(f"{name}: {one}")
    click.echo(f"wrote {made.path} {made.revision}")
