"""`eul-train fuse`: the layers of many requests as one bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eul_serve.errors import InputError
from eul_trainer.cli import options, outcome
from eul_trainer.cli.main import emit
from eul_trainer.fusion.settings import METHODS, FuseSettings

if TYPE_CHECKING:
    from eul_trainer.fusion.retained import Retained
    from eul_trainer.records import Fields


@click.command(name="fuse")
@click.argument("bundles", nargs=-1, required=True, type=options.PATH, metavar="DIR...")
@click.option("--out", type=options.PATH, metavar="DIR", help="Directory to write; it must be new or empty.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=METHODS[0],
    show_default=True,
    help="concat: side by side. regression: the paper's closed form. compress, distil: one layer of lower rank. "
    "gate: measured only.",
)
@options.optional_model
@options.optional_retain
@outcome.settings
@click.option(
    "--keep-energy/--no-keep-energy",
    default=None,
    help="concat, gate: scale each layer back to the energy that it had alone.  [default: keep]",
)
@click.option("--evaluate-only", is_flag=True, help="Write nothing; say how much the losses rise.")
@click.option("--rows", multiple=True, type=options.PATH, metavar="FILE", help="Rows to measure then, beside --retain.")
@options.prompt_field
@options.completion_field
@options.group_field
@options.device
@options.as_json
def command(
    bundles: tuple[Path, ...],
    out: Path | None,
    method: str,
    model: str | None,
    retain: Path | None,
    evaluate_only: bool,
    rows: tuple[Path, ...],
    prompt_field: str,
    completion_field: str,
    group_field: str,
    device: str,
    as_json: bool,
    **chosen: float | str | None,
) -> None:
    """Fuse unlearning layers into one bundle. Needs no forget data.

    With --model and --retain the layers side by side are corrected against retained data, which is what keeps unrelated
    answers as they are; without them the result is the exact sum of the layers. A fused bundle may be among the
    inputs: its own layers are taken out of its fusion.safetensors.

    \b
    Examples:
      eul-train fuse layers/alice layers/bob --model base --retain keep.jsonl --out fused
      eul-train fuse fused layers/carol --model base --retain keep.jsonl --retain-limit 0.1 --out fused-2
      eul-train fuse layers/alice layers/bob --method compress --rank 16 --out small
      eul-train fuse layers/* --method gate --model base --retain keep.jsonl --evaluate-only --rows alice.jsonl
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.fusion.fuse import fuse
    from eul_trainer.fusion.methods import check_settings
    from eul_trainer.output.directory import check_output
    from eul_trainer.records import Fields

    given = {name: value for name, value in chosen.items() if value is not None}
    settings = FuseSettings.from_facts({"method": method, **given})
    check_settings(settings, retain=retain is not None)
    fields = Fields(prompt=prompt_field, completion=completion_field, group=group_field)
    if evaluate_only:
        _measure(bundles, settings, retained_rows(model, retain, device, fields), rows, fields, as_json)
        return
    if out is None or rows:
        raise InputError("--out: name the directory to write, or --evaluate-only, which alone reads --rows")
    check_output(out)
    bundle = fuse(bundles, out, settings, retained_rows(model, retain, device, fields))
    requests = ", ".join(request.id for request in bundle.manifest.requests)
    outcome.tell(bundle, f"fused {requests} by {method} at rank {bundle.config.rank}", as_json)


def retained_rows(model: str | None, retain: Path | None, device: str, fields: Fields) -> Retained | None:
    """Load the model and the retained rows where both are named; None where neither is."""
    from eul_trainer.fusion.retained import Retained
    from eul_trainer.model.load import load_model
    from eul_trainer.records import read_rows

    if (model is None) != (retain is None):
        raise InputError("--model and --retain: expected both or neither; the retained rows are run through the model")
    if model is None or retain is None:
        return None
    rows = read_rows(retain, fields)
    return Retained(model=load_model(model, device), rows=rows)


def _measure(
    bundles: tuple[Path, ...],
    settings: FuseSettings,
    retained: Retained | None,
    rows: tuple[Path, ...],
    fields: Fields,
    as_json: bool,
) -> None:
    from eul_trainer.fusion.trial import measure
    from eul_trainer.records import read_rows

    if retained is None:
        raise InputError("--evaluate-only: needs a model and rows; name them with --model DIR and --retain FILE")
    trial = measure(bundles, settings, retained, {path.stem: read_rows(path, fields) for path in rows})
    if as_json:
        emit({"method": settings.method, "requests": list(trial.requests), "rises": trial.rises, **trial.facts})
        return
    click.echo(
        f"{', '.join(trial.requests)} by {settings.method}, nothing written; answer loss against the base model:"
    )
    for name, groups in trial.rises.items():
        click.echo(f"  {name}: " + ", ".join(f"{group} {rise:+.3f}" for group, rise in groups.items()) + " nats")
