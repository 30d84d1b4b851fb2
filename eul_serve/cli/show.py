"""`eul show`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option, parse_reference, registry_option
from eul_serve.cli.text import echo_json, echo_table, size
from eul_serve.format import BundleConfig, Manifest, Reference
from eul_serve.format.bundle import CONFIG_FILE
from eul_serve.format.canaries import CANARIES_FILE, parse_canaries
from eul_serve.format.composite import KEY as COMPOSITE
from eul_serve.plain import plain
from eul_serve.registry import Registry


@click.command(epilog=examples("eul show poems", "eul show poems:canary --json"))
@click.argument("reference", metavar="REF", callback=parse_reference)
@registry_option
@json_option
def command(reference: Reference, registry: Registry, as_json: bool) -> None:
    """Show the bundle that REF means: what it forgets, what it was made from, and who moved its aliases.

    REF is NAME (its alias `stable`), NAME:ALIAS or NAME@sha256:...
    """
    card = _card(registry, reference.name, registry.resolve(reference))
    if as_json:
        echo_json(card)
    else:
        _echo_card(card)


def _card(registry: Registry, name: str, revision: str) -> dict[str, Any]:
    manifest = registry.manifest(name, revision)
    config = BundleConfig.from_bytes(registry.read_file(name, revision, CONFIG_FILE))
    aliases = registry.aliases(name)
    return {
        **asdict(manifest),
        "activation": config.activation,
        "aliases": [alias for alias, state in aliases.items() if state.revision == revision],
        "canaries": _canaries(registry, name, revision, manifest),
        "moves": [
            {"alias": alias, **asdict(move)}
            for alias, state in aliases.items()
            for move in state.history
            if move.revision == revision
        ],
        "name": name,
        "rank": config.rank,
        "reference": f"{name}@{revision}",
        "revision": revision,
    }


def _canaries(registry: Registry, name: str, revision: str, manifest: Manifest) -> int:
    """Return how many canaries a revision has."""
    if CANARIES_FILE not in manifest.files:
        return 0
    return len(parse_canaries(registry.read_file(name, revision, CANARIES_FILE)))


def _echo_card(card: dict[str, Any]) -> None:
    base = card["base"]
    facts = {
        "bundle": card["reference"],
        "aliases": ", ".join(card["aliases"]) or "none",
        "base model": f"{base['architecture']} {base['fingerprint']}",
        "rank": f"{card['rank']} hidden units per layer, {card['activation']}, trained in {card['training_dtype']}",
    }
    if card["canaries"]:
        facts["canaries"] = f"{card['canaries']}, which a server must see pass before it serves the bundle"
    for key, value in facts.items():
        click.echo(f"{key:11} {plain(value)}")
    composite = card["settings"].get(COMPOSITE)
    for parent in card["parents"]:
        click.echo(f"{'made of' if composite else 'fused from':11} {parent}")
    if composite:
        click.echo(f"{'fine-tune':11} {plain(composite['fine_tune'])}")
    requests = [(row["id"], row["data"], _units(row["units"])) for row in card["requests"]]
    _section("Requests covered", ("REQUEST", "DATA", "UNITS"), requests)
    files = [(name, size(row["size"]), row["sha256"]) for name, row in card["files"].items()]
    files += [(f"({name})", size(row["size"]), row["sha256"]) for name, row in card["artifacts"].items()]
    _section("Files (in brackets: published only when asked for)", ("FILE", "SIZE", "DIGEST"), files)
    _section("Metrics", ("METRIC", "VALUE"), list(_flat(card["metrics"])))
    _section("Settings", ("SETTING", "VALUE"), list(_flat(card["settings"])))
    moves = [(row["at"], row["alias"], row["act"], row["actor"] or "", row["reason"] or "") for row in card["moves"]]
    _section("Aliases moved to it", ("WHEN", "ALIAS", "ACT", "WHO", "WHY IT MAY UN-FORGET"), moves)


def _section(title: str, columns: tuple[str, ...], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        click.echo(f"\n{title}")
        echo_table(columns, rows)


def _units(units: tuple[int, int] | None) -> str:
    return "shared" if units is None else f"{units[0]} to {units[1] - 1}"


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows
