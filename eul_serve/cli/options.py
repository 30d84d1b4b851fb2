"""Options and arguments that several commands take."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any, TypeVar

import click

from eul_serve.errors import InputError
from eul_serve.format import Reference, check_name
from eul_serve.registry import open_registry
from eul_serve.registry.open import ALLOWED
from eul_serve.registry.stored import StoredRegistry

_F = TypeVar("_F", bound=Callable[..., Any])
REGISTRY_HELP = f"The registry: {ALLOWED}."


def parse_registry(_: click.Context, __: click.Parameter, value: str | None) -> StoredRegistry | None:
    """Open the registry at a URL."""
    return None if value is None else open_registry(value)


def parse_reference(_: click.Context, __: click.Parameter, value: str) -> Reference:
    """Parse `NAME`, `NAME:ALIAS` or `NAME@sha256:...`."""
    return Reference.parse(value)


def parse_name(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check the name of a bundle or an alias."""
    return None if value is None else check_name(value, "alias" if parameter.name == "alias" else "bundle")


def parse_reason(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse a reason that says nothing."""
    if value is not None and not value.strip():
        raise InputError("--reason: expected a reason in words, found none; say why, as it is recorded")
    return value


def registry_option(function: _F) -> _F:
    """Take the registry as `registry`."""
    return click.option(
        "--registry",
        metavar="URL",
        callback=parse_registry,
        required=True,
        envvar="EUL_REGISTRY",
        show_envvar=True,
        help=REGISTRY_HELP,
    )(function)


def reason_option(function: _F) -> _F:
    """Take `reason`, which must be given."""
    return click.option(
        "--reason", metavar="TEXT", required=True, callback=parse_reason, help="Why; recorded for good."
    )(function)


def json_option(function: _F) -> _F:
    """Take `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")(function)


def unforget_option(function: _F) -> _F:
    """Take `allow_unforget`."""
    return click.option(
        "--allow-unforget",
        metavar="REASON",
        help="Allow a move that drops a request the alias covers now, and record why.",
    )(function)


def actor_option(function: _F) -> _F:
    """Take `actor`."""
    return click.option(
        "--actor",
        envvar="EUL_ACTOR",
        show_envvar=True,
        default=_user,
        help="Who does this, for the alias's history and the log; your login name by default.",
    )(function)


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None  # a container's user without an entry
