"""What `eul show` tells of a bundle: the facts, as a document and as a page for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from eul_serve.cli.lineage import Lineage, echo_lineage
from eul_serve.cli.text import echo_table, size
from eul_serve.format import BundleConfig, Manifest
from eul_serve.format.bundle import CONFIG_FILE
from eul_serve.format.canaries import CANARIES_FILE, parse_canaries
from eul_serve.format.composite import KEY as COMPOSITE
from eul_serve.plain import plain
from eul_serve.registry import Registry
from eul_serve.registry.orders import Order


def read_card(registry: Registry, name: str, revision: str) -> dict[str, Any]:
    """Return all facts of a revision, as plain JSON.

    Args:
        registry: The registry.
        name: Name of the bundle.
        revision: The revision.

    Returns:
        The manifest's keys, and what the registry knows beside it.
    """
    manifest = registry.manifest(name, revision)
    config = BundleConfig.from_bytes(registry.read_file(name, revision, CONFIG_FILE))
    aliases, standing = registry.aliases(name), registry.standing()
    return {
        **asdict(manifest),
        "activation": config.activation,
        "aliases": [alias for alias, state in aliases.items() if state.revision == revision],
        "ancestors": [asdict(ancestor) for ancestor in Lineage(registry).of(manifest)],
        "banned": _order(standing.banned.get(revision)),
        "canaries": _canaries(registry, name, revision, manifest),
        "held": _order(standing.held.get(revision)),
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
        "signatures": len(registry.signatures(name, revision)),
    }


def _order(order: Order | None) -> dict[str, str | None] | None:
    return None if order is None else {"actor": order.actor, "at": order.at, "reason": order.reason}


def _canaries(registry: Registry, name: str, revision: str, manifest: Manifest) -> int:
    """Return how many canaries a revision has."""
    if CANARIES_FILE not in manifest.files:
        return 0
    return len(parse_canaries(registry.read_file(name, revision, CANARIES_FILE)))


def echo_card(card: dict[str, Any]) -> None:
    """Print a card for people; what decides whether it may serve stands first."""
    for key, value in _facts(card):
        click.echo(f"{key:11} {plain(value)}")
    requests = [(row["id"], row["data"], _units(row["units"])) for row in card["requests"]]
    _section("Requests covered", ("REQUEST", "DATA", "UNITS"), requests)
    if card["ancestors"]:
        composite = card["settings"].get(COMPOSITE)
        click.echo("\nMade of" if composite else "\nFused from")
        echo_lineage(card["reference"], card["ancestors"])
    _section("Evidence, as its maker measured it", ("METRIC", "VALUE"), list(_flat(card["metrics"])))
    _section("Settings", ("SETTING", "VALUE"), list(_flat(card["settings"])))
    files = [(name, size(row["size"]), row["sha256"]) for name, row in card["files"].items()]
    files += [(f"({name})", size(row["size"]), row["sha256"]) for name, row in card["artifacts"].items()]
    _section("Files (in brackets: published only when asked for)", ("FILE", "SIZE", "DIGEST"), files)
    moves = [(row["at"], row["alias"], row["act"], row["actor"] or "", row["reason"] or "") for row in card["moves"]]
    _section("Aliases moved to it", ("WHEN", "ALIAS", "ACT", "WHO", "WHY IT MAY UN-FORGET"), moves)


def _facts(card: dict[str, Any]) -> list[tuple[str, str]]:
    base = card["base"]
    facts = [("bundle", card["reference"])]
    facts += [(mark, _standing(card[mark])) for mark in ("banned", "held") if card[mark]]
    last = {move["alias"]: move for move in card["moves"]}
    facts += [("alias", _move(last[alias])) for alias in card["aliases"]] or [("alias", "none")]
    facts.append(("signatures", f"{card['signatures']}, not checked here" if card["signatures"] else "none"))
    facts.append(("base model", f"{base['architecture']} {base['fingerprint']}"))
    facts.append(
        ("rank", f"{card['rank']} hidden units per layer, {card['activation']}, trained in {card['training_dtype']}")
    )
    if card["canaries"]:
        words = "which a server must see pass before it serves the bundle"
        facts.append(("canaries", f"{card['canaries']}, {words}"))
    if composite := card["settings"].get(COMPOSITE):
        facts.append(("fine-tune", composite["fine_tune"]))
    return facts


def _move(move: dict[str, Any]) -> str:
    return f"{move['alias']} since {move['at']}, {move['act']} by {move['actor'] or 'nobody known'}"


def _standing(order: dict[str, str | None]) -> str:
    return f"since {order['at']} by {order['actor'] or 'nobody known'}: {order['reason']}"


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
