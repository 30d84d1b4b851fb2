"""`eul ban`."""

from __future__ import annotations

from contextlib import suppress

import click

from eul_serve.cli.complete import complete_reference
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import actor_option, json_option, reason_option, registry_option
from eul_serve.cli.text import echo_json
from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format import Reference, check_digest
from eul_serve.registry import Registry
from eul_serve.registry.orders import OrderAct

_ACTS: dict[tuple[bool, bool], OrderAct] = {
    (False, False): "ban",
    (False, True): "lift",
    (True, False): "ban_signer",
    (True, True): "lift_signer",
}
"""By whether it is about a signer, and whether it ends a ban."""


@click.command(
    epilog=examples(
        'eul ban poems@sha256:... --reason "brings back request r7, ticket 4711"',
        'eul ban --signer sha256:... --reason "its key was stolen"',
        'eul ban --lift poems@sha256:... --reason "measured again, ticket 4712"',
    )
)
@click.argument("reference", metavar="REF", required=False, shell_complete=complete_reference)
@registry_option
@click.option("--signer", metavar="FINGERPRINT", help="Ban a signer's key instead: sha256: and 64 hex digits.")
@click.option("--lift", is_flag=True, help="End the ban.")
@reason_option
@actor_option
@json_option
def command(
    reference: str | None,
    registry: Registry,
    signer: str | None,
    lift: bool,
    reason: str,
    actor: str | None,
    as_json: bool,
) -> None:
    """Ban the revision that REF means now: nobody may serve it, publish it or move an alias to it.

    Servers see a ban at their next look at the registry. NAME@sha256:... may be banned before it is published. A ban is
    of the revision, under every name. With --signer, no signature of that key is believed any more.
    """
    if (reference is None) == (signer is None):
        raise InputError("expected a REF or --signer FINGERPRINT; give one of the two")
    digest = check_digest(signer) if signer is not None else _revision(registry, Reference.parse(reference or ""))
    changed = registry.order(_ACTS[signer is not None, lift], digest, reason, actor)
    aliases = [] if signer is not None or lift else _aliases(registry, digest)
    if as_json:
        what = "signer" if signer is not None else "revision"
        echo_json({"aliases": aliases, "banned": not lift, "changed": changed, what: digest})
        return
    click.echo(_sentence(lift=lift, changed=changed))
    click.echo(digest)
    for alias in aliases:
        click.echo(f"{alias} points to it, so nothing is served there: `eul promote` another revision, or roll back")


def _revision(registry: Registry, reference: Reference) -> str:
    return reference.revision or registry.resolve(reference)


def _sentence(*, lift: bool, changed: bool) -> str:
    if lift:
        return "the ban is lifted" if changed else "it was not banned"
    return "banned" if changed else "banned already; the reason given before stands"


def _aliases(registry: Registry, revision: str) -> list[str]:
    """Return the aliases, of any name, that point to a revision; nobody can say where a damaged one points."""
    found = []
    for name in registry.names():
        for alias in registry.alias_names(name):
            with suppress(BundleFormatError):
                found += [f"{name}:{alias}"] if registry.alias(name, alias).revision == revision else []
    return found
