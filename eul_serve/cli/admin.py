"""`eul admin`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from eul_serve.cli.connection import admin_options, connect_admin
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.cli.text import echo_json, echo_table
from eul_serve.errors import InputError

if TYPE_CHECKING:
    from eul_serve.client import AdminClient, Step

ACTS = ("status", "watch", "activate", "pin", "unpin", "drain", "resume", "reload-policy")
_ABOUT_ONE = ("activate", "pin", "unpin")


@click.command(
    epilog=examples(
        "export EUL_ADMIN_TOKEN=...",
        "eul admin status",
        "eul admin watch --json",
        "eul admin activate poems:stable",
        "eul admin drain --reason 'new kernel'",
    )
)
@click.argument("act", type=click.Choice(ACTS))
@click.argument("reference", required=False)
@click.option("--reason", help="Why, for the audit log; `drain` needs it.")
@admin_options
@json_option
def command(act: str, reference: str | None, reason: str | None, as_json: bool, **connection: Any) -> None:  # noqa: ANN401  # the options of `connect_admin`
    r"""Watch and steer a running server on its administrators' port.

    \b
    status         what it holds and does
    watch          each step of each revision, until Ctrl-C
    activate REF   look at an alias now, and wait until it is active
    pin REF        let the alias keep a slot of the engine; unpin takes it back
    drain          take no new requests (--reason); resume takes them again
    reload-policy  read the policy file now
    """
    if (reference is not None) != (act in _ABOUT_ONE):
        raise InputError(f"{act}: expected {'an alias, NAME:ALIAS' if act in _ABOUT_ONE else 'no alias'}")
    if (reason is not None) != (act == "drain"):
        raise InputError(f"--reason: `drain` needs it and no other act takes it; this is {act!r}")
    with connect_admin(**connection) as client:
        if act == "status":
            _print_status(client, as_json)
        elif act == "watch":
            for step in client.watch():
                click.echo(json.dumps(asdict(step), sort_keys=True) if as_json else _line(step))
        else:
            found = _do(client, act, reference or "", reason or "")
            echo_json(found) if as_json else click.echo(" ".join(f"{name}={found[name]}" for name in found) or "done")


def _do(client: AdminClient, act: str, reference: str, reason: str) -> dict[str, Any]:
    if act == "activate":
        return {"revision": client.activate(reference)}
    if act == "pin":
        return {"revision": client.pin(reference)}
    if act == "unpin":
        client.unpin(reference)
    elif act == "drain":
        return {"in_flight": client.drain(reason)}
    elif act == "resume":
        client.resume()
    else:
        epoch, changed = client.reload_policy()
        return {"epoch": epoch, "changed": changed}
    return {}


def _print_status(client: AdminClient, as_json: bool) -> None:
    from google.protobuf.json_format import MessageToDict

    status = client.status()
    found = MessageToDict(status, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if as_json:
        echo_json(found)
        return
    kind = "drains" if found["draining"] else "serves"
    click.echo(
        f"{kind}; {found['running']} of {found['batch']} requests run, {found['waiting']} wait; "
        f"{found['slots']} slots, {found['capacity']} places; policy {found['policy_epoch']}"
    )
    rows = [
        (
            one["state"].removeprefix("BUNDLE_STATE_").lower(),
            f"{one['name']}@{one['revision']}",
            " ".join(one["references"]) + (" (pinned)" if one["pinned"] else ""),
            str(one["in_flight"]),
            one["error"],
        )
        for one in found["revisions"]
    ]
    if rows:
        echo_table(("STATE", "REVISION", "ALIASES", "RUNNING", "ERROR"), rows)


def _line(step: Step) -> str:
    parts = (step.at, step.act, step.reference, step.state, step.revision, step.detail)
    return "  ".join(part for part in parts if part)
