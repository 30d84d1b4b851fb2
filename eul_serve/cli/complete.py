"""What a shell offers at the Tab key: names, aliases and revisions of the registry; nothing where anything fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import click

from eul_serve.registry import Registry, open_registry

SECONDS = 2.0
"""Longest time that a person waits for what a registry far away has."""
_Ask = Callable[[Registry], list[str]]


def complete_name(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names of bundles."""
    return _ask(context, lambda registry: [name for name in registry.names() if name.startswith(incomplete)])


def complete_alias(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer the aliases of the bundle that stands before."""
    before = context.params.get("name") or getattr(context.params.get("reference"), "name", None)
    if before is None:
        return []
    return _ask(context, lambda registry: [one for one in registry.alias_names(before) if one.startswith(incomplete)])


def complete_reference(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer NAME, and from a whole name on also NAME:ALIAS and NAME@sha256:..."""

    def references(registry: Registry) -> list[str]:
        names = registry.names()
        name = incomplete.partition("@")[0].partition(":")[0]
        found = list(names)
        if name in names:
            found += [f"{name}:{alias}" for alias in registry.alias_names(name)]
            found += [f"{name}@{revision}" for revision in registry.revisions(name)]
        return [one for one in found if one.startswith(incomplete)]

    return _ask(context, references)


def _ask(context: click.Context, ask: _Ask) -> list[str]:
    found: list[str] = []

    def work() -> None:
        # At the Tab key there is nobody to tell of an error.
        try:
            url = os.environ.get("EUL_REGISTRY", "")
            found.extend(ask(context.params.get("registry") or open_registry(url)))
        except Exception:
            return

    asking = threading.Thread(target=work, daemon=True, name="eul-complete")
    asking.start()
    asking.join(SECONDS)
    return list(found)
