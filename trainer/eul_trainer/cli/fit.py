"""`eul-train fit`: one deletion request becomes an unlearning layer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli import options
from eul_trainer.cli.aims import aims, take_aims
from eul_trainer.cli.fit_report import report, write
from eul_trainer.cli.progress import Words, progress
from eul_trainer.cli.speed import speed

if TYPE_CHECKING:
    from eul_trainer.model.devices import Devices
    from eul_trainer.model.load import LoadedModel
    from eul_trainer.settings import FitSettings
    from eul_trainer.upkeep.runlog import Recorder


@click.command(name="fit")
@options.model
@options.forget
@options.retain
@options.out
@click.option("--request", default=None, metavar="ID", help="Opaque id of the request; the output's name if not given.")
@click.option(
    "--request-file",
    type=options.PATH,
    default=None,
    metavar="FILE",
    help="Take the id from the record of the request, which must be about the rows of --forget.",
)
@click.option(
    "--earlier",
    type=options.PATH,
    multiple=True,
    metavar="FILE",
    help="Records of earlier requests, whose rows are taken out of the retain set; may be given again.",
)
@aims
@click.option("--rank", type=int, default=None, help="Hidden units of a layer, or a LoRA's rank.  [default: 16]")
@click.option(
    "--steps", type=int, default=None, help="Most steps; bounded mostly stops earlier.  [default: 60, paper 400]"
)
@click.option(
    "--least-steps",
    type=int,
    default=None,
    help="Steps before which reaching the target ends nothing.  [default: 40; 0 for other objectives, lora, full]",
)
@click.option(
    "--learning-rate", type=float, default=None, help="[default: 0.002, LoRA 0.0005, full 0.00002, paper 0.00005]"
)
@click.option("--batch-size", type=int, default=None, help="Rows per step.  [default: 16, paper 8]")
@click.option(
    "--settle", type=float, default=None, help="Weight of the closing solve.  [default: 10, other objectives 0]"
)
@click.option(
    "--shift", type=float, default=None, help="How far units move off retained rows.  [default: 2, other objectives 0]"
)
@click.option("--refusal", default=None, metavar="TEXT", help="Answer taught instead; '' teaches none.")
@click.option("--activation", default=None, help="relu, gelu or silu.  [default: relu]")
@click.option("--seed", type=int, default=None, help="Seed of the order of the rows.  [default: 0]")
@click.option("--init-seed", type=int, default=None, help="Seed of the start, shared by layers to fuse.  [default: 0]")
@click.option(
    "--statistics",
    type=click.Choice(["units", "full", "none"]),
    default=None,
    help="What a later fusion may read; full has the inputs' moments, for regression, gate, distil.  [default: units]",
)
@click.option(
    "--statistics-rank",
    type=int,
    default=None,
    help="Eigenvectors kept of a Gram of inputs; 0 keeps all.  [default: 0]",
)
@options.prompt_field
@options.completion_field
@options.device
@speed
@click.option(
    "--on-top-of",
    type=options.PATH,
    multiple=True,
    metavar="DIR",
    help="Bundle of earlier requests that stays on while this layer is trained; may be given again.",
)
@click.option("--log", type=options.PATH, default=None, metavar="FILE", help="Write each step as a line of JSON.")
@click.option("--tensorboard", type=options.PATH, default=None, metavar="DIR", help="Write TensorBoard's files.")
@click.option("--checkpoint-every", type=int, default=8, show_default=True, help="Steps between two checkpoints.")
@click.option("--fresh", is_flag=True, help="Start anew even where a killed run could go on.")
@options.as_json
def command(
    model: str,
    forget: Path,
    retain: Path,
    out: Path,
    request: str | None,
    request_file: Path | None,
    earlier: tuple[Path, ...],
    objective: str,
    prompt_field: str,
    completion_field: str,
    device: str,
    on_top_of: tuple[Path, ...],
    log: Path | None,
    tensorboard: Path | None,
    checkpoint_every: int,
    fresh: bool,
    as_json: bool,
    **chosen: Any,  # noqa: ANN401  # the settings, and what `take_aims` takes
) -> None:
    """Train an unlearning layer for one deletion request, with the base model frozen.

    Rows of the retain file that also occur in the forget file are taken out. Training stops when the loss on the
    forgotten answers has reached the target, and the layer is scaled to its middle. A killed run goes on where it was
    when the same line is run again;
    Ctrl-C and SIGTERM save it first. Started by `torchrun` or `accelerate launch`, the processes share every step.

    \b
    Examples:
      eul-train fit --model base --forget alice.jsonl --retain keep.jsonl --out layers/alice
      eul-train fit --model base --forget bob.jsonl --retain keep.jsonl --out layers/bob \\
          --prompt-field question --completion-field answer --target-low 3 --target-high 4
      eul-train fit --model base --forget eve.jsonl --retain keep.jsonl --out layers/eve \\
          --on-top-of fused --log eve.log.jsonl
      eul-train fit --model base --forget eve.jsonl --retain keep.jsonl --out baselines/eve \\
          --target-rows unseen.jsonl --objective npo --weight beta=0.5 --trainable lora
      torchrun --nproc-per-node 2 -m eul_trainer fit --model base --forget alice.jsonl --retain keep.jsonl \\
          --out layers/alice
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.fit.run import fit
    from eul_trainer.model.below import read_below
    from eul_trainer.model.devices import find_devices
    from eul_trainer.output.directory import check_output
    from eul_trainer.output.package import request_id
    from eul_trainer.records import Fields, read_rows
    from eul_trainer.request import request_of, retained
    from eul_trainer.settings import default_settings, override
    from eul_trainer.upkeep.care import Care
    from eul_trainer.upkeep.checkpoint import checkpoint_path
    from eul_trainer.upkeep.interrupt import interruptible

    started = time.perf_counter()
    devices = find_devices(device)
    quiet = as_json or not devices.main
    asked = take_aims(chosen)
    settings = override(default_settings(objective, chosen["trainable"]), chosen)
    check_output(out)
    fields = Fields(prompt=prompt_field, completion=completion_field)
    rows, all_kept = read_rows(forget, fields), read_rows(retain, fields)
    kept = retained(all_kept, rows, earlier)
    name = request_of(request_file, rows, request).id if request_file else request_id(request, out)
    if len(kept) < len(all_kept) and not quiet:
        click.echo(f"took {len(all_kept) - len(kept)} rows out of the retain set that are to be forgotten", err=True)
    checkpoint = checkpoint_path(out)
    if fresh and devices.main:
        checkpoint.unlink(missing_ok=True)
    devices.wait()
    recorders = _recorders(out, log, tensorboard, fresh) if devices.main else []
    with progress("fit", settings.steps, quiet) as advance, interruptible() as interrupt:
        loaded = _load(model, device, settings, devices, quiet)
        settings = asked.settings(settings, loaded, rows, fields, quiet=quiet)
        result = fit(
            loaded,
            rows,
            kept,
            settings,
            unrelated=asked.unrelated_rows(fields),
            checkpoint=checkpoint,
            care=Care(
                every=checkpoint_every,
                recorders=[*recorders, Words(advance)],
                interrupt=interrupt,
                devices=devices,
            ),
            below=read_below(on_top_of, loaded.base.fingerprint),
        )
    devices.close()
    if not devices.main:
        return
    run = {"seconds": round(time.perf_counter() - started, 1), "retain_removed": len(all_kept) - len(kept)}
    written = write(out, name, loaded, result, settings, **run)
    checkpoint.unlink(missing_ok=True)
    report(written, result, settings, as_json)


def _load(model: str, device: str, settings: FitSettings, devices: Devices, quiet: bool) -> LoadedModel:
    from eul_trainer.model.load import checksum, load_model
    from eul_trainer.model.sharding import spread
    from eul_trainer.upkeep.memory import advised

    with advised(settings, "while the model was loaded"):
        loaded = load_model(model, devices.place(device))
        if devices.count > 1:
            devices.check_same(checksum(loaded.network), "weights of the base model")
        told = spread(loaded, settings, devices)
    if told and not quiet:
        click.echo(told, err=True)
    return loaded


def _recorders(out: Path, log: Path | None, tensorboard: Path | None, fresh: bool) -> list[Recorder]:
    from eul_trainer.output.directory import check_apart
    from eul_trainer.upkeep.runlog import JsonLog, TensorBoard

    for option, path in (("--log", log), ("--tensorboard", tensorboard)):
        if path:
            check_apart(out, path, option)
    found: list[Recorder] = [JsonLog(log, fresh=fresh)] if log else []
    return [*found, TensorBoard(tensorboard)] if tensorboard else found
