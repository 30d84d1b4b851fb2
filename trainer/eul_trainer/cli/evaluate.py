"""`eul-train eval`: what a bundle forgets and what it keeps, in numbers and on a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from eul_serve.errors import EulError, InputError
from eul_trainer.cli import options
from eul_trainer.cli.asked import Asked, check_places, forget_sets, read_bundles
from eul_trainer.cli.evaluating import run_evaluation
from eul_trainer.cli.main import emit
from eul_trainer.cli.server import ServerOptions, reached, server_options, tell_answered
from eul_trainer.output.directory import write_files

TOLD = (
    "systems",
    "requests",
    "answered",
    "served_as_measured",
    "sets",
    "comparisons",
    "gaps",
    "verdicts",
    "references",
)
"""What --json prints of metrics.json."""


@click.command(name="eval")
@options.model
@options.bundles
@options.forget_files
@options.retain
@click.option(
    "--unseen",
    type=options.PATH,
    metavar="FILE",
    help="JSON lines of the same kind as those to forget that the model never saw, for membership inference.",
)
@options.twin
@click.option(
    "--masked-words", is_flag=True, help="Also measure how well words masked in questions are found, as T5 can."
)
@click.option(
    "--policy",
    type=options.PATH,
    metavar="FILE",
    help="Rules with two sides that say whether a bundle passes (TOML); the built-in ones unless given.",
)
@click.option("--enforce", is_flag=True, help="Exit with status 1 where a bundle does not pass.")
@options.out
@options.group_field
@options.answer_tokens
@options.cache
@options.prompt_field
@options.completion_field
@options.device
@server_options
@options.as_json
def command(
    model: str,
    bundles: tuple[Path, ...],
    forget: tuple[tuple[str | None, Path], ...],
    retain: Path,
    unseen: Path | None,
    twin: str | None,
    masked_words: bool,
    policy: Path | None,
    enforce: bool,
    out: Path,
    group_field: str,
    tokens: int,
    cache: Path | None,
    prompt_field: str,
    completion_field: str,
    device: str,
    as_json: bool,
    server: ServerOptions,
) -> None:
    """Measure what bundles forget and what they change of the rest, beside the base model.

    Loss, probability, memorisation, ROUGE-L and gibberish of every row; of what is kept also how many greedy answers
    are still the base model's, and how far the predictions moved. Writes metrics.json (means by set and group, and
    every row), report.html and report.md. Use rows that were not trained on: paraphrases of what is forgotten, and near
    neighbours of it among what is kept. A killed run goes on when the same line is run again.

    \b
    Examples:
      eul-train eval --model base --forget alice.heldout.jsonl --retain keep.heldout.jsonl --out before
      eul-train eval --model base --bundle layers/alice --bundle fused \\
          --forget alice=alice.heldout.jsonl --forget bob=bob.heldout.jsonl --retain keep.heldout.jsonl --out report
      torchrun --nproc-per-node 2 -m eul_trainer eval --model base --bundle fused --forget alice.heldout.jsonl \\
          --retain keep.heldout.jsonl --out report
      eul-train eval --model base --bundle fused --forget alice.heldout.jsonl --retain keep.heldout.jsonl \\
          --server 127.0.0.1:8500 --server-token token --out served
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.evaluation.companions import FIELDS
    from eul_trainer.evaluation.evaluate import EvalSet
    from eul_trainer.evaluation.policy import DEFAULT, read_policy
    from eul_trainer.evaluation.record import metrics
    from eul_trainer.evaluation.report import render_report
    from eul_trainer.model.devices import find_devices
    from eul_trainer.records import Fields, read_rows

    devices = find_devices(device)
    if devices.sharded:
        raise InputError("eval: every process holds the whole model; leave --use_fsdp out")
    kept = check_places(out, cache)
    rules = read_policy(policy or DEFAULT)
    fields = Fields(prompt=prompt_field, completion=completion_field, group=group_field, extra=FIELDS)
    named = read_bundles(model, bundles)
    sets = [
        *forget_sets(forget, fields, named),
        EvalSet(name="retain", kind="retain", rows=read_rows(retain, fields)),
        *([EvalSet(name="unseen", kind="unseen", rows=read_rows(unseen, fields))] if unseen else []),
    ]
    asked = Asked(
        model=model,
        bundles=named,
        twin=twin,
        cache=kept,
        tokens=tokens,
        device=devices.place(device),
        quiet=as_json or not devices.main,
        masked_words=masked_words,
        devices=devices,
    )
    with reached(asked, server) as ready:
        evaluation, systems = run_evaluation("eval", ready, sets)
    if devices.count > 1:
        devices.close()
    if not devices.main:
        return
    found = metrics(evaluation, systems, rules)
    write_files(out, {"metrics.json": json.dumps(found, indent=1) + "\n", **render_report(found)})
    if as_json:
        emit({"path": str(out), **{name: found[name] for name in TOLD}})
    else:
        _tell(out, found)
    failed = [verdict["sentence"] for verdict in found["verdicts"].values() if not verdict["passed"]]
    if enforce and failed:
        raise EulError("; ".join(failed))


def _tell(out: Path, found: Mapping[str, Any]) -> None:
    for summary in found["sets"]:
        losses = ", ".join(f"{name} {numbers['loss']:.3f}" for name, numbers in summary["systems"].items())
        click.echo(f"{summary['name']} ({summary['kind']}, {summary['rows']} rows): loss {losses}")
    tell_answered(found["answered"], found["served_as_measured"])
    for verdict in found["verdicts"].values():
        click.echo(verdict["sentence"])
    click.echo(f"wrote {out / 'metrics.json'} and {out / 'report.html'}")
