"""`eul-train fuse`: the layers of many requests as one bundle."""

from __future__ import annotations

from pathlib import Path

import click

from eul_serve.errors import InputError
from eul_trainer.cli import options
from eul_trainer.cli.main import emit


@click.command(name="fuse")
@click.argument("bundles", nargs=-1, required=True, type=options.PATH, metavar="DIR...")
@options.out
@click.option(
    "--method",
    type=click.Choice(["concat", "regression"]),
    default="concat",
    show_default=True,
    help="concat puts layers side by side; regression is the paper's closed form at the same rank.",
)
@options.optional_model
@options.optional_retain
@click.option("--rho", type=float, default=None, help="Weight of retained data in concat's correction.  [default: 0.1]")
@click.option("--ridge", type=float, default=None, help="Relative ridge of the solve.  [default: 0.0001]")
@options.prompt_field
@options.completion_field
@options.device
@options.as_json
def command(
    bundles: tuple[Path, ...],
    out: Path,
    method: str,
    model: str | None,
    retain: Path | None,
    rho: float | None,
    ridge: float | None,
    prompt_field: str,
    completion_field: str,
    device: str,
    as_json: bool,
) -> None:
    """Fuse unlearning layers into one bundle. Needs no forget data.

    With --model and --retain the layers side by side are corrected against retained data, which is what keeps unrelated
    answers as they are; without them the result is the exact sum of the layers. A fused bundle may be among the
    inputs: its own layers are taken out of its fusion.safetensors.

    \b
    Examples:
      eul-train fuse layers/alice layers/bob --model base --retain keep.jsonl --out fused
      eul-train fuse fused layers/carol --model base --retain keep.jsonl --out fused-2
      eul-train fuse layers/alice layers/bob --method regression --out averaged
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.fusion.fuse import FuseSettings, fuse
    from eul_trainer.fusion.retained import RetainGram
    from eul_trainer.model import load_model
    from eul_trainer.output import check_output
    from eul_trainer.records import Fields, read_rows

    given = {"rho": rho, "ridge": ridge}
    settings = FuseSettings(method=method, **{name: value for name, value in given.items() if value is not None})
    check_output(out)
    gram = None
    if (model is None) != (retain is None):
        raise InputError("--model and --retain: expected both or neither; the retained rows are run through the model")
    if model is not None and retain is not None:
        rows = read_rows(retain, Fields(prompt=prompt_field, completion=completion_field))
        gram = RetainGram(model=load_model(model, device), rows=rows)
    bundle = fuse(bundles, out, settings, gram)
    requests = [request.id for request in bundle.manifest.requests]
    if as_json:
        emit({"path": str(bundle.path), "revision": bundle.revision, "requests": requests, "rank": bundle.config.rank})
        return
    click.echo(f"fused {', '.join(requests)} by {method} at rank {bundle.config.rank}")
    click.echo(f"wrote {bundle.path} {bundle.revision}")
