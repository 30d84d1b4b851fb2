"""`eul diff`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from eul_serve.cli.complete import complete_reference
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option, parse_reference, registry_option
from eul_serve.cli.text import echo_json, echo_table, size
from eul_serve.format import BundleConfig, FileEntry, Manifest, Reference
from eul_serve.format.bundle import CONFIG_FILE
from eul_serve.plain import plain
from eul_serve.registry import Registry


@click.command(epilog=examples("eul diff poems:stable poems:canary", "eul diff poems@sha256:... poems --json"))
@click.argument("first", metavar="A", callback=parse_reference, shell_complete=complete_reference)
@click.argument("second", metavar="B", callback=parse_reference, shell_complete=complete_reference)
@registry_option
@json_option
def command(first: Reference, second: Reference, registry: Registry, as_json: bool) -> None:
    """Show what the bundle B forgets that A does not, and the other way round, and what else differs.

    A and B are NAME (its alias `stable`), NAME:ALIAS or NAME@sha256:... To move an alias from A to B is refused where A
    forgets a request that B does not.
    """
    one, two = (_facts(registry, reference) for reference in (first, second))
    found = {"a": one["reference"], "b": two["reference"], **_requests(one["manifest"], two["manifest"])}
    found["differ"] = {
        key: {"a": one["plain"][key], "b": two["plain"][key]}
        for key in one["plain"]
        if one["plain"][key] != two["plain"][key]
    }
    found["files"] = _files(one["manifest"], two["manifest"])
    if as_json:
        echo_json(found)
    else:
        _echo(found)


def _facts(registry: Registry, reference: Reference) -> dict[str, Any]:
    revision = registry.resolve(reference)
    manifest = registry.manifest(reference.name, revision)
    config = BundleConfig.from_bytes(registry.read_file(reference.name, revision, CONFIG_FILE))
    compared = {
        "architecture": manifest.base.architecture,
        "base": manifest.base.fingerprint,
        "parents": list(manifest.parents),
        "rank": config.rank,
        "training_dtype": manifest.training_dtype,
    }
    return {"manifest": manifest, "plain": compared, "reference": f"{reference.name}@{revision}"}


def _requests(one: Manifest, two: Manifest) -> dict[str, list[str]]:
    data = [{request.id: request.data for request in manifest.requests} for manifest in (one, two)]
    both = one.request_ids & two.request_ids
    return {
        "both_forget": sorted(both),
        "changed_requests": sorted(name for name in both if data[0][name] != data[1][name]),
        "only_a_forgets": sorted(one.request_ids - two.request_ids),
        "only_b_forgets": sorted(two.request_ids - one.request_ids),
    }


def _files(one: Manifest, two: Manifest) -> dict[str, dict[str, Any]]:
    ours, theirs = ({**manifest.files, **manifest.artifacts} for manifest in (one, two))
    names = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    return {name: {"a": _entry(ours, name), "b": _entry(theirs, name)} for name in names}


def _entry(entries: Mapping[str, FileEntry], name: str) -> dict[str, Any] | None:
    entry = entries.get(name)
    return None if entry is None else {"sha256": entry.sha256, "size": entry.size}


def _echo(found: Mapping[str, Any]) -> None:
    facts = {"A": found["a"], "B": found["b"], "only A forgets": " ".join(found["only_a_forgets"]) or "none"}
    facts |= {"only B forgets": " ".join(found["only_b_forgets"]) or "none"}
    facts |= {"both forget": " ".join(found["both_forget"]) or "none"}
    if found["changed_requests"]:
        facts["other rows"] = " ".join(found["changed_requests"])
    for key, value in facts.items():
        click.echo(f"{key:15} {plain(value)}")
    rows = [(key.replace("_", " "), *row) for key, pair in found["differ"].items() for row in _values(pair)]
    rows += [
        (f"file {name}", side.upper(), _file(pair[side])) for name, pair in found["files"].items() for side in "ab"
    ]
    if rows:
        click.echo("\nWhat differs")
        echo_table(("WHAT", "OF", "VALUE"), rows)
        click.echo()
    click.echo(_verdict(found))


def _values(pair: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield one row for each value of each side, so that no digest is broken."""
    for side in "ab":
        values = pair[side] if isinstance(pair[side], list) else [pair[side]]
        for value in values or ["none"]:
            yield side.upper(), str(value)


def _verdict(found: Mapping[str, Any]) -> str:
    if found["a"].partition("@")[2] == found["b"].partition("@")[2]:
        return "they are the same revision"
    if dropped := found["only_a_forgets"]:
        return f"an alias does not move from A to B without --allow-unforget: {', '.join(dropped)} would come back"
    return "an alias may move from A to B: B forgets all that A forgets"


def _file(entry: Mapping[str, Any] | None) -> str:
    return "none" if entry is None else f"{size(entry['size'])} {entry['sha256']}"
