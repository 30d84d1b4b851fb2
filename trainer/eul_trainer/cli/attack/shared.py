"""What all attacks share: their options, reading what is attacked, and writing what came back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli import options
from eul_trainer.cli.asked import Asked, check_places, forget_sets, read_bundles
from eul_trainer.cli.main import emit
from eul_trainer.cli.server import tell_answered
from eul_trainer.evaluation.answerer import SERVER, TRANSFORMERS
from eul_trainer.evaluation.written import ATTACK
from eul_trainer.output.directory import replace_file

if TYPE_CHECKING:
    from eul_trainer.attacks.result import AttackResult
    from eul_trainer.evaluation.evaluate import EvalSet


def attack_options(run: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all attacks share."""
    shared = [
        options.model,
        click.option(
            "--bundle",
            "bundles",
            multiple=True,
            type=options.PATH,
            required=True,
            metavar="DIR",
            help="Bundle to attack; may be given more than once.",
        ),
        options.forget_files,
        options.twin,
        options.out,
        options.answer_tokens,
        options.cache,
        options.prompt_field,
        options.completion_field,
        options.device,
        options.as_json,
    ]
    for option in reversed(shared):
        run = option(run)
    return run


def read_asked(
    model: str,
    bundles: tuple[Path, ...],
    out: Path,
    cache: Path | None,
    forget: tuple[tuple[str | None, Path], ...],
    prompt_field: str,
    completion_field: str,
    as_json: bool,
    **given: Any,  # noqa: ANN401  # further fields of Asked
) -> tuple[Asked, list[EvalSet]]:
    """Check the output, and read what is to be measured."""
    from eul_trainer.attacks.prompts import PARAPHRASE
    from eul_trainer.evaluation.ratios import FIELDS
    from eul_trainer.records import Fields

    kept = check_places(out, cache)
    named = read_bundles(model, bundles)
    sets = forget_sets(
        forget, Fields(prompt=prompt_field, completion=completion_field, extra=(*FIELDS, PARAPHRASE)), named
    )
    return Asked(model=model, bundles=named, cache=kept, quiet=as_json, **given), sets


def finish(
    out: Path, asked: Asked, found: list[AttackResult], agreement: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write attack.json and tell what came back, and how far a server's answers are those of transformers."""
    from eul_trainer.attacks.result import KNOWING
    from eul_trainer.evaluation.cache import code_digest
    from eul_trainer.evaluation.roles import BASE, TWIN

    systems = {BASE: None, **{name: bundle.revision for name, bundle in asked.bundles}}
    record: dict[str, Any] = {
        "systems": systems,
        "answered": {
            name: SERVER if name in asked.served else TRANSFORMERS
            for name in [*systems, *([TWIN] if asked.twin else [])]
        },
        "served_as_measured": dict(agreement or {}),
        "code": code_digest(),
        "attacks": [result.to_json() for result in found],
    }
    replace_file(out / ATTACK, json.dumps(record, indent=1, sort_keys=True) + "\n")
    if asked.quiet:
        emit({"path": str(out), **record})
        return
    for result in found:
        measure = next(name for name in KNOWING if name in next(iter(result.systems.values())))
        told = ", ".join(f"{name} {numbers[measure]:.3f}" for name, numbers in result.systems.items())
        click.echo(f"{result.set}, {result.name} (budget {result.budget:g}, {result.rows} rows): {measure} {told}")
    tell_answered(record["answered"], record["served_as_measured"])
    click.echo(f"wrote {out / ATTACK}")
