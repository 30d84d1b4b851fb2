"""What `fit` writes at the end of a run, and what it says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli.main import emit

if TYPE_CHECKING:
    from eul_trainer.model.load import LoadedModel
    from eul_trainer.output.result import FitResult
    from eul_trainer.settings import FitSettings


def write(
    out: Path, request: str, model: LoadedModel, result: FitResult, settings: FitSettings, **run: int | float
) -> dict[str, str]:
    """Write what was trained: a bundle, or for a LoRA or all weights what other tools read.

    Args:
        out: The directory; new or empty.
        request: Opaque id of the request.
        model: The base model.
        result: The result.
        settings: Its settings.
        **run: What is recorded of the run beside its curve.

    Returns:
        The path, and a bundle's revision or the kind of weights.
    """
    from eul_trainer.output.package import write_parcel
    from eul_trainer.output.result import parcel
    from eul_trainer.output.weights import write_weights

    record: dict[str, Any] = {"curve": result.curve, "resumed_at": result.resumed, **run}
    if result.network is None:
        bundle = write_parcel(out, parcel(request, result, settings, record))
        return {"path": str(bundle.path), "revision": bundle.revision}
    write_weights(out, model, result, settings, request, record)
    return {"path": str(out), "kind": settings.trainable}


def report(written: dict[str, str], result: FitResult, settings: FitSettings, as_json: bool) -> None:
    """Say how the run ended.

    Args:
        written: What `write` returned.
        result: The result.
        settings: Its settings.
        as_json: Whether to print one line of JSON.
    """
    from eul_trainer.output.weights import KINDS

    if as_json:
        found = {
            "steps": result.steps,
            "resumed_at": result.resumed,
            "forget_before": result.before,
            "forget_after": result.after,
            "scale": result.scale,
            "target": [settings.target_low, settings.target_high],
            "reached": result.reached,
        }
        emit({**written, **found})
        return
    if result.resumed:
        click.echo(f"went on from step {result.resumed} of a run that was cut off")
    scaled = f", scaled by {result.scale:.2f}" if result.scale != 1 else ""
    click.echo(f"forget loss {result.before:.2f} -> {result.after:.2f} nats after {result.steps} steps{scaled}")
    if not result.reached and settings.objective != "paper":
        target = f"the target of {settings.target_low} to {settings.target_high}"
        click.echo(f"{target} {_missed(result, settings)}, or change the target", err=True)
    click.echo(f"wrote {written['path']} {KINDS[written['kind']] if 'kind' in written else written['revision']}")


def _missed(result: FitResult, settings: FitSettings) -> str:
    if result.after < settings.target_low:
        return "was not reached: raise --steps or --rank"
    if result.before > settings.target_high:
        return "lies below what the base model itself answers with: name rows that it knows"
    return "was passed: lower --learning-rate"
