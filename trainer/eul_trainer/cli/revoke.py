"""`eul-train revoke`: a fused bundle without some of its requests."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli import options, outcome
from eul_trainer.cli.fuse import retained_rows


@click.command(name="revoke")
@click.argument("bundle", type=options.PATH, metavar="DIR")
@click.option("--request", "requests", required=True, multiple=True, metavar="ID", help="A request to take out.")
@options.out
@options.optional_model
@options.optional_retain
@options.prompt_field
@options.completion_field
@options.group_field
@options.device
@options.as_json
def command(
    bundle: Path,
    requests: tuple[str, ...],
    out: Path,
    model: str | None,
    retain: Path | None,
    prompt_field: str,
    completion_field: str,
    group_field: str,
    device: str,
    as_json: bool,
) -> None:
    """Take requests out of a fused bundle and fuse the rest again, with no forget data.

    The result equals a fusion of the other layers with the same settings. No data at all is needed, but after
    --heal-steps, which --model and --retain do again; with them a weight that --retain-limit chose is chosen again too.

    \b
    Examples:
      eul-train revoke fused --request alice --out fused-without-alice
      eul-train revoke healed --request alice --request bob --model base --retain keep.jsonl --out rest
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.fusion.revoke import revoke
    from eul_trainer.output.directory import check_output
    from eul_trainer.records import Fields

    check_output(out)
    fields = Fields(prompt=prompt_field, completion=completion_field, group=group_field)
    rest = revoke(bundle, requests, out, retained_rows(model, retain, device, fields))
    left = ", ".join(item.id for item in rest.manifest.requests)
    outcome.tell(rest, f"took out {', '.join(requests)}; left are {left}", as_json)
