"""`eul gc`."""

from __future__ import annotations

import click

from eul_serve.cli.lazy import examples
from eul_serve.cli.options import actor_option, json_option, parse_reason, registry_option
from eul_serve.cli.text import echo_json, echo_table
from eul_serve.errors import InputError, NotFoundError
from eul_serve.format import check_name
from eul_serve.registry.collect import KEEP_DAYS, Collection, Collector
from eul_serve.registry.stored import StoredRegistry

MAX_DAYS = 36_500


@click.command(
    epilog=examples(
        "eul gc",
        "eul gc --keep-days 90 --yes",
        "eul gc --request r7",
        'eul gc --request r7 --reason "its author withdrew consent to keep the layer, ticket 4711" --yes',
    )
)
@registry_option
@click.option(
    "--keep-days",
    type=click.IntRange(0, MAX_DAYS),
    default=int(KEEP_DAYS),
    show_default=True,
    help="Days that a revision stays after it was published, or was last behind an alias.",
)
@click.option("--request", metavar="ID", help="Remove every revision that covers this request instead, for good.")
@click.option("--reason", metavar="TEXT", callback=parse_reason, help="Why; recorded for good. --request needs it.")
@click.option("--dry-run", is_flag=True, help="Only say what would go; so it is without --yes too.")
@click.option("--yes", is_flag=True, help="Remove it.")
@actor_option
@json_option
def command(
    registry: StoredRegistry,
    keep_days: int,
    request: str | None,
    reason: str | None,
    dry_run: bool,
    yes: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Remove revisions that nobody needs, and files that no revision names. Without --yes only say which.

    A revision stays while an alias points to it, while it is held, and for --keep-days after that and after it was
    published. `eul hold` the layers that a later fusion or revocation needs.

    With --request, every revision that covers the request goes, however young, and may never be published again. It is
    refused while an alias points to one of them, or one is held.
    """
    if dry_run and yes:
        raise InputError("--dry-run, --yes: one says to write nothing, the other to remove; give one of the two")
    if (request is None) != (reason is None) and (yes or request is None):
        raise InputError(
            "--request, --reason: a request is removed for a reason, and nothing else needs one; give both"
        )
    collector = Collector(registry, keep_days, actor)
    if request is None:
        done = collector.collect(dry_run=not yes)
    else:
        done = _delete(collector, check_name(request, "request"), reason or "", yes=yes)
    if as_json:
        echo_json(_document(done, yes=yes))
    else:
        _echo(done, yes=yes)


def _delete(collector: Collector, request: str, reason: str, *, yes: bool) -> Collection:
    done = collector.delete_request(request, reason, dry_run=not yes)
    if not done.removed:
        raise NotFoundError(f"request {request!r}: no revision covers it; `eul list` shows what each covers")
    return done


def _document(done: Collection, *, yes: bool) -> dict[str, object]:
    return {
        "blobs": done.blobs,
        "dry_run": not yes,
        "kept": [{"reason": one.reason, "reference": one.reference} for one in done.kept],
        "removed": [one.reference for one in done.removed],
    }


def _echo(done: Collection, *, yes: bool) -> None:
    goes = "gone" if yes else "would go"
    rows = [(one.reference, goes, "") for one in done.removed]
    rows += [(one.reference, "stays", one.reason or "") for one in done.kept]
    if rows:
        echo_table(("BUNDLE", "", "WHY"), rows)
    click.echo(f"{goes}: revisions {len(done.removed)}, files {done.blobs}; revisions that stay: {len(done.kept)}")
    if not yes and (done.removed or done.blobs):
        click.echo("nothing was removed; --yes removes it")
