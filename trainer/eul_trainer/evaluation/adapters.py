"""How a server calls what is measured: the name under which it serves the very revision of a bundle here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eul_serve.client import Client
from eul_serve.errors import InputError, NotFoundError, RefusedError
from eul_serve.format import Bundle
from eul_trainer.evaluation.roles import BASE

PROBE = "?"
"""Asked for one token, to learn which revision answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One system, as a server knows it."""

    name: str
    """What a request names: `name:alias`, `name@sha256:...` or `base`."""
    revision: str
    """The revision that every answer must come from; `base` for the base model."""


def find_adapters(
    client: Client, bundles: Sequence[tuple[str, Bundle]], named: Mapping[str, str]
) -> dict[str, Adapter]:
    """Find the bundles on a server, and the base model where the policy grants it.

    Args:
        client: The server.
        bundles: The bundles, by system.
        named: What the server calls them, by system, where that is known.

    Returns:
        Adapter by system; none for a base model that is not granted.

    Raises:
        InputError: A name is given to a system that is not measured.
        NotFoundError: A revision is not served to this caller.
        EulError: The server refused or failed.
    """
    systems = [name for name, _ in bundles]
    for system in named:
        if system not in systems:
            raise InputError(f"--served {system!r}: expected the name of a --bundle: {', '.join(systems) or 'none'}")
    found = {name: _find(client, name, bundle.revision, named.get(name)) for name, bundle in bundles}
    try:
        return {BASE: Adapter(name=BASE, revision=_revision(client, BASE)), **found}
    except RefusedError:  # few tenants may ask the base model, which is the point of a policy
        return found


def _find(client: Client, system: str, revision: str, named: str | None) -> Adapter:
    others = []
    for name in _candidates(client, revision, named):
        try:
            answers = _revision(client, name)
        except RefusedError:  # unknown and forbidden are one
            continue
        if answers == revision:
            return Adapter(name=name, revision=revision)
        others.append(f", and {name} is {answers}")
    raise NotFoundError(
        f"server {client.address}: it does not serve {revision}, which is --bundle {system!r}, to this token"
        f"{''.join(others)}; publish it, ask for the right to it, or say what it is called with --served {system}=NAME"
    )


def _candidates(client: Client, revision: str, named: str | None) -> Iterator[str]:
    """Yield what may name a revision, the likeliest first: that revision itself before an alias that may move."""
    if named:
        yield from ([named] if {":", "@"} & set(named) else [f"{named}@{revision}", named])
        return
    listed = sorted(client.bundles(), key=lambda one: one.revision != revision)
    yield from dict.fromkeys(f"{one.name}@{revision}" for one in listed)
    yield from (f"{one.name}:{one.alias}" for one in listed if one.alias and one.revision == revision)


def _revision(client: Client, name: str) -> str:
    return client.generate(PROBE, adapter=name, max_tokens=1).revision
