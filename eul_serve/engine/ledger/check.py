"""The check that the installed vLLM still has every hook point as the ledger says."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass

from eul_serve.engine.ledger.inside import ABSENT, find, has_attribute, names_in, parameters_of
from eul_serve.engine.ledger.point import VERSIONS, HookPoint
from eul_serve.errors import EngineError


@dataclass(frozen=True, slots=True)
class Moved:
    """A hook point that is not as the ledger says."""

    point: HookPoint
    """The entry."""
    name: str
    """The name that is not as it should be: the entry's own, or that of a function that must use it."""
    fact: str
    """What was expected and what was found."""

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.point.target}: {self.fact}"


def find_moved(points: Iterable[HookPoint]) -> tuple[Moved, ...]:
    """Compare entries with the installed vLLM; takes milliseconds once vLLM is imported.

    Args:
        points: The entries.

    Returns:
        Those that moved; of names inside each other, the outermost alone, and of a function that is gone and what it
        must use, the function alone.
    """
    moved = [one for one in map(_examine, points) if one is not None]
    gone = [one for one in moved if one.fact == _GONE]
    inside, users = tuple(f"{one.name}." for one in gone), {one.point.name for one in gone}
    return tuple(
        one
        for one in moved
        if not one.name.startswith(inside)
        and not (one.fact.endswith(_NO_USER) and one.name.rpartition(".")[2] in users)
    )


def require(points: Iterable[HookPoint]) -> None:
    """Refuse a vLLM in which a hook point moved.

    Args:
        points: The entries that the caller relies on.

    Raises:
        EngineError: One moved; the message names it, the installed version and the versions that fit.
        ImportError: There is a package of the name, but it is not whole.
    """
    version = _installed_version()
    moved = find_moved(points)
    if not moved:
        return
    more = f" (and {len(moved) - 1} more)" if len(moved) > 1 else ""
    raise EngineError(
        f"vLLM {version}: hook point {moved[0]}{more}; bundles ride on it, and this eul-serve is written for vLLM "
        f"{VERSIONS[0]} to {VERSIONS[1]}: install one of these"
    )


def _installed_version() -> str:
    version = getattr(importlib.import_module("vllm"), "__version__", None)
    if version is None:
        raise ImportError("vllm has no version", name="vllm")
    return str(version)


_GONE = "expected this name, found none"
_NO_USER = "found no such function"


def _examine(point: HookPoint) -> Moved | None:
    found = next((one for one in map(find, point.spellings()) if one is not ABSENT), ABSENT)
    if found is ABSENT:
        return Moved(point, point.target, _GONE)
    for name in point.reads:
        if not has_attribute(found, name):
            return Moved(point, point.target, f"expected the attribute {name!r}, found none")
    return _examine_parameters(point, found) or _examine_users(point)


def _examine_parameters(point: HookPoint, found: object) -> Moved | None:
    if point.use != "overridden" and not point.takes:
        return None
    parameters = parameters_of(found)
    if parameters is None:
        return Moved(point, point.target, "expected a function, found none")
    fits = parameters == point.takes if point.use == "overridden" else set(point.takes) <= set(parameters)
    if fits:
        return None
    fact = f"expected the parameters ({', '.join(point.takes)}), found ({', '.join(parameters)})"
    return Moved(point, point.target, fact)


def _examine_users(point: HookPoint) -> Moved | None:
    for user in point.used_by:
        function = find(user)
        if function is ABSENT:
            return Moved(point, user, f"expected it to be used by {user}, {_NO_USER}")
        if point.name not in names_in(function):
            return Moved(point, user, f"expected it to be used by {user}, which does not")
    return None
