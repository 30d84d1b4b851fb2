"""`eul-train canary`: texts that a bundle must be seen to hide before a server lets it serve."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress

if TYPE_CHECKING:
    from eul_trainer.canaries.attach import Attached


@click.command(name="canary")
@click.argument("bundle", type=options.PATH, metavar="BUNDLE")
@options.model
@click.option(
    "--texts",
    required=True,
    type=options.PATH,
    metavar="FILE",
    help="JSON lines that the bundle makes the model forget, 1 to 256.",
)
@options.out
@click.option(
    "--private",
    required=True,
    type=options.PATH,
    metavar="FILE",
    help="File to write the canaries' texts to, for the server alone; it must be new.",
)
@click.option(
    "--margin",
    default=1.0,
    show_default=True,
    help="Least nats by which the bundle must make an answer less likely, all its tokens together.",
)
@click.option("--skip-weak", is_flag=True, help="Leave out texts that the bundle hides less than that; else an error.")
@options.prompt_field
@options.completion_field
@options.device
@options.as_json
def command(
    bundle: Path,
    model: str,
    texts: Path,
    out: Path,
    private: Path,
    margin: float,
    skip_weak: bool,
    prompt_field: str,
    completion_field: str,
    device: str,
    as_json: bool,
) -> None:
    """Write a copy of a bundle or composite with canaries: texts that a server must find hidden before it serves it.

    How unlikely each answer is gets measured under the base model alone and with the bundle on; a server must find at
    least half of the difference. The copy holds digests and these numbers. The texts go into --private, which is for
    `eul serve --canaries` and is as sensitive as the data that was to be forgotten. Neither file is written without the
    other.

    Attach canaries last, to what is published: a fusion, a revocation or another training makes a bundle without any.
    Composing keeps them. The copy has a revision of its own, so evaluate and certify that one.

    \b
    Examples:
      eul-train canary fused --model base --texts forget.jsonl --out fused-canaries --private canaries.jsonl
      eul publish fused-canaries --name poems --alias stable
      eul serve --model base --registry registry --policy policy.toml --canaries canaries.jsonl
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.canaries.attach import Strength, attach, check_places
    from eul_trainer.canaries.measured import MODELS
    from eul_trainer.records import Fields, read_rows

    strength = Strength(margin=margin, skip_weak=skip_weak)
    check_places(out, private)
    rows = read_rows(texts, Fields(prompt=prompt_field, completion=completion_field))
    with progress("measure", MODELS, as_json) as advance:
        done = count(1)
        attached = attach(
            model, bundle, rows, out, private, strength, device=device, tell=lambda words: advance(next(done), words)
        )
    if as_json:
        emit({**_facts(attached), "private": str(private)})
        return
    gains = [row.gained for row in attached.rows if row not in attached.weak]
    left = f"; {len(attached.weak)} weak texts were left out" if attached.weak else ""
    click.echo(f"canaries {len(gains)}, each hidden by {min(gains):.2f} nats or more{left}")
    click.echo(f"wrote {private}, which is private")
    click.echo(f"wrote {attached.bundle.path} {attached.bundle.revision}")


def _facts(attached: Attached) -> dict[str, Any]:
    """Return what is told of a copy and its rows; never a text."""
    rows = [
        {
            "row": number,
            "base": round(row.base, 3),
            "bundle": round(row.bundle, 3),
            "least_nats": None if row in attached.weak else row.least_nats,
        }
        for number, row in enumerate(attached.rows, 1)
    ]
    return {
        "path": str(attached.bundle.path),
        "revision": attached.bundle.revision,
        "canaries": len(attached.bundle.canaries),
        "left_out": len(attached.weak),
        "rows": rows,
    }
