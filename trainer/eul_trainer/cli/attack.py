"""`eul-train attack`: how much of what a bundle hides comes back, and at what cost to the attacker."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli import options
from eul_trainer.cli.evaluating import Asked, forget_sets, run_evaluation
from eul_trainer.cli.main import emit
from eul_trainer.output.directory import check_apart, check_output, replace_file

if TYPE_CHECKING:
    from eul_trainer.attacks.result import AttackResult
    from eul_trainer.evaluation.evaluate import EvalSet

FILE = "attack.json"


@click.group(name="attack")
def command() -> None:
    """Try to bring back what bundles hide, and say how much comes back.

    Each attack has a budget, and writes attack.json. Give a twin, a model that was taught the same without what is to
    be forgotten: only beside it can be said what an attack brought back, and what anybody could have guessed.
    """


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
        click.option(
            "--forget",
            multiple=True,
            required=True,
            type=options.PATH,
            metavar="FILE",
            help="JSON lines that should be forgotten; may be given more than once.",
        ),
        click.option("--twin", metavar="DIR", help="A model that was taught the same without what is to be forgotten."),
        options.out,
        click.option(
            "--answer-tokens",
            "tokens",
            type=click.IntRange(1, 1024),
            default=32,
            show_default=True,
            help="Most tokens of an answer.",
        ),
        click.option(
            "--cache",
            type=options.PATH,
            metavar="DIR",
            help="Where results of single rows are kept; OUT.cache unless named.",
        ),
        options.prompt_field,
        options.completion_field,
        options.device,
        options.as_json,
    ]
    for option in reversed(shared):
        run = option(run)
    return run


@command.command()
@attack_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of which rows are examples.")
def prompts(seed: int, **given: Any) -> None:  # noqa: ANN401  # the shared options
    """Ask in other formats, with the beginning of the answer, and behind examples of other forgotten rows.

    \b
    Example:
      eul-train attack prompts --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out attacked
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.attacks.asking import asked_sets, results
    from eul_trainer.attacks.prompts import prompt_attacks

    asked, sets = _asked(**given)
    attacks = prompt_attacks(seed)
    evaluation, systems = run_evaluation("attack", asked, asked_sets(sets, attacks))
    _finish(given["out"], systems.revisions, results(evaluation, sets, attacks), asked.quiet)


@command.command()
@attack_options
def rounding(**given: Any) -> None:  # noqa: ANN401  # the shared options
    """Round the weights of the base model, of the bundle and of both to 8 and 4 bits.

    \b
    Example:
      eul-train attack rounding --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out attacked
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.attacks.result import set_results
    from eul_trainer.attacks.rounding import BITS, PARTS, round_network

    asked, sets = _asked(**given)
    evaluation, systems = run_evaluation("plain", asked, sets)
    found = [result for chosen in sets for result in set_results(evaluation, chosen.name, "rounding", "plain", 32)]
    for name, part, bits in [(f"{part}-{bits}", part, bits) for part in PARTS for bits in BITS]:
        change = replace(asked, change=partial(round_network, bits=bits, part=part), note=f"rounded {name}")
        evaluation, _ = run_evaluation(name, change, sets)
        found += [result for chosen in sets for result in set_results(evaluation, chosen.name, "rounding", name, bits)]
    _finish(given["out"], systems.revisions, found, asked.quiet)


def _asked(
    out: Path,
    cache: Path | None,
    forget: tuple[Path, ...],
    prompt_field: str,
    completion_field: str,
    as_json: bool,
    **given: Any,  # noqa: ANN401  # the fields of Asked
) -> tuple[Asked, list[EvalSet]]:
    """Check the output, and read what is to be measured."""
    from eul_trainer.records import Fields

    check_output(out)
    if cache:
        check_apart(out, cache, "--cache")
    sets = forget_sets(forget, Fields(prompt=prompt_field, completion=completion_field))
    return Asked(cache=cache or out.with_name(f"{out.name}.cache"), quiet=as_json, **given), sets


def _finish(out: Path, systems: dict[str, str | None], found: list[AttackResult], as_json: bool) -> None:
    """Write attack.json and tell what came back."""
    record: dict[str, Any] = {"systems": systems, "attacks": [result.to_json() for result in found]}
    replace_file(out / FILE, json.dumps(record, indent=1, sort_keys=True) + "\n")
    if as_json:
        emit({"path": str(out), **record})
        return
    for result in found:
        told = ", ".join(f"{name} {numbers['rouge_l']:.2f}" for name, numbers in result.systems.items())
        click.echo(f"{result.set}, {result.name} (budget {result.budget:g}, {result.rows} rows): ROUGE-L {told}")
    click.echo(f"wrote {out / FILE}")
