"""`eul-train sequence`: requests that come and go, and what every step does to each of them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_serve.errors import InputError
from eul_trainer.cli import options
from eul_trainer.cli.asked import Asked, check_places, forget_sets
from eul_trainer.cli.evaluating import run_evaluation
from eul_trainer.cli.fuse import retained_rows
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress
from eul_trainer.fusion.settings import METHODS, FuseSettings
from eul_trainer.output.directory import write_files

if TYPE_CHECKING:
    from eul_trainer.evaluation.workshop import Made, Workshop

MOST_ORDERS = 24
"""Most orders of a run: all of four requests."""


@click.command(name="sequence")
@click.argument("layers", nargs=-1, required=True, type=options.PATH, metavar="DIR...")
@options.model
@options.forget_files
@options.retain
@click.option(
    "--fuse-retain",
    type=options.PATH,
    metavar="FILE",
    help="JSON lines that fusions are solved against, other ones than --retain; an exact sum unless given.",
)
@click.option(
    "--order",
    "orders",
    multiple=True,
    metavar="ID,ID,...",
    help="An order in which requests come; may be given more than once. The layers' own order unless given.",
)
@click.option("--all-orders", is_flag=True, help=f"Every order; at most {MOST_ORDERS}, which four requests have.")
@click.option("--revocations/--no-revocations", default=True, show_default=True, help="Take them out again at the end.")
@click.option("--method", type=click.Choice(METHODS[:-1]), default=METHODS[0], show_default=True, help="As of fuse.")
@options.out
@options.answer_tokens
@options.cache
@options.prompt_field
@options.completion_field
@options.group_field
@options.device
@options.as_json
def command(
    layers: tuple[Path, ...],
    model: str,
    forget: tuple[tuple[str | None, Path], ...],
    retain: Path,
    fuse_retain: Path | None,
    orders: tuple[str, ...],
    all_orders: bool,
    revocations: bool,
    method: str,
    out: Path,
    tokens: int,
    cache: Path | None,
    prompt_field: str,
    completion_field: str,
    group_field: str,
    device: str,
    as_json: bool,
) -> None:
    """Measure every request and what is kept after each fusion and each revocation.

    Requests come one after another, in every order asked for, and go again as they came. Bundles of the same weights
    are measured once. Bundles and results are kept in the cache, so that a killed run goes on. Writes sequence.json;
    `eul-train report --sequence` draws it.

    \b
    Examples:
      eul-train sequence layers/alice layers/bob layers/carol --model base --forget alice=alice.heldout.jsonl \\
          --forget bob=bob.heldout.jsonl --retain keep.heldout.jsonl --fuse-retain keep.jsonl --out sequence
      eul-train sequence layers/* --model base --forget alice=alice.heldout.jsonl --retain keep.heldout.jsonl \\
          --order alice,bob,carol --order carol,alice,bob --no-revocations --out orders
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.evaluation.cache import code_digest
    from eul_trainer.evaluation.evaluate import EvalSet
    from eul_trainer.evaluation.sequence import sequence_record
    from eul_trainer.evaluation.workshop import Workshop, layers_by_request
    from eul_trainer.output.package import versions
    from eul_trainer.records import Fields, read_rows

    kept = check_places(out, cache)
    known = layers_by_request(layers)
    chosen = _orders(list(known), orders, all_orders)
    fields = Fields(prompt=prompt_field, completion=completion_field, group=group_field)
    sets = [
        *forget_sets(forget, fields, list(known.items())),
        EvalSet(name="retain", kind="retain", rows=read_rows(retain, fields)),
    ]
    # The model is let go of with the workshop, and loaded once more where the bundles are measured.
    made = _make(
        Workshop(
            kept / "bundles",
            known,
            FuseSettings(method=method),
            retained_rows(model, fuse_retain, device, fields) if fuse_retain else None,
        ),
        chosen,
        revocations,
        as_json,
    )
    asked = Asked(
        model=model,
        bundles=list({part.name: part.bundle for order in made for part in order}.items()),
        twin=None,
        cache=kept,
        tokens=tokens,
        device=device,
        quiet=as_json,
    )
    evaluation, systems = run_evaluation("measure", asked, sets)
    found = {
        "base": systems.model.base.fingerprint,
        **sequence_record(made, evaluation),
        "code": code_digest(),
        "versions": versions(),
    }
    write_files(out, {"sequence.json": json.dumps(found, indent=1) + "\n"})
    if as_json:
        emit({"path": str(out), **found})
        return
    _tell(out, found)


def _orders(known: Sequence[str], given: Sequence[str], every: bool) -> list[tuple[str, ...]]:
    """Return the orders that are asked for."""
    if every and given:
        raise InputError("--all-orders: leave --order out, or this")
    if every:
        if math.factorial(len(known)) > MOST_ORDERS:
            raise InputError(
                f"--all-orders: {len(known)} requests have {math.factorial(len(known))} orders, at most {MOST_ORDERS} "
                "are run; name some with --order"
            )
        return list(itertools.permutations(known))
    found = [tuple(name.strip() for name in text.split(",")) for text in given] or [tuple(known)]
    for order in found:
        for request in order:
            if request not in known or order.count(request) > 1:
                wrong = "no layer has this request" if request not in known else "it stands there twice"
                raise InputError(
                    f"--order {','.join(order)!r}: {request!r}: {wrong}; the layers have {', '.join(known)}"
                )
    return found


def _make(workshop: Workshop, orders: Sequence[Sequence[str]], revocations: bool, quiet: bool) -> list[list[Made]]:
    steps = sum(len(order) * (1 + revocations) - revocations for order in orders)
    done = itertools.count()
    with progress("fuse", steps, quiet) as advance:
        return [
            workshop.run(order, revocations, lambda step: advance(next(done), f"{step.action} {step.request}"))
            for order in orders
        ]


def _tell(out: Path, found: dict[str, Any]) -> None:
    before = ", ".join(f"{name} {part['loss']:.3f}" for name, part in found["before"].items())
    click.echo(f"before: loss {before}")
    for order in found["orders"]:
        click.echo(f"order {', '.join(order['order'])}:")
        for step in order["steps"]:
            losses = ", ".join(f"{name} {part['loss']:.3f}" for name, part in step["sets"].items())
            click.echo(f"  {step['action']} {step['request']} ({step['seconds']:.1f} s): loss {losses}")
    click.echo(f"wrote {out / 'sequence.json'}")
