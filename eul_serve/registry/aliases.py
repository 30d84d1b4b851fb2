"""Moving an alias: by the un-forget rule, logged before it is seen, and by one client at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eul_serve.audit.chain import Entry
from eul_serve.errors import NotFoundError
from eul_serve.format import Manifest, check_name
from eul_serve.registry import history
from eul_serve.registry.base import Act, AliasMove, AliasState
from eul_serve.registry.chain import Chain
from eul_serve.registry.log import ActLog
from eul_serve.registry.store import Store
from eul_serve.registry.unforget import check_reason, check_unforget

May = Callable[[], None]
"""Raises where a revision may not be named any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Who moves an alias, by what act, and why a covered request may be dropped."""

    act: Act
    """What moves it."""
    actor: str | None
    """Who, where known."""
    reason: str | None
    """Why a covered request may be dropped; None where none may."""

    def __post_init__(self) -> None:
        check_reason(self.reason)


@dataclass(frozen=True, slots=True)
class _Current:
    """An alias at one moment."""

    state: AliasState
    """Where it points."""
    last: Entry
    """The entry that the next move follows."""


class Aliases:
    """The aliases of one registry; safe for several threads."""

    def __init__(self, store: Store, manifest: Callable[[str, str], Manifest], log: ActLog) -> None:
        self._store = store
        self._manifest = manifest
        self._log = log
        self._chains: dict[tuple[str, str], Chain] = {}
        self._known: dict[str, _Current] = {}

    def names(self, name: str) -> list[str]:
        """Return the names of a bundle's aliases, sorted."""
        return self._store.list("names", check_name(name, "bundle"), "aliases")

    def state(self, name: str, alias: str) -> AliasState:
        """Return where an alias points, or raise where it is missing (NotFoundError) or damaged (BundleFormatError)."""
        current = self._current(name, alias)
        if current is None:
            raise NotFoundError(f"{name}:{alias}: not found; `eul list` shows what is published")
        return current.state

    def check(self, name: str, alias: str, wanted: Manifest, reason: str | None) -> tuple[str, ...] | None:
        """Find out what a move would drop.

        Args:
            name: Name of the bundle.
            alias: The alias.
            wanted: Manifest of the revision to move to.
            reason: Why a covered request may be dropped; None where nobody said.

        Returns:
            The ids of the requests that would be dropped, or None where the alias points there already.

        Raises:
            RefusedError: Some would be dropped, and there is no reason.
        """
        return self._look(name, alias, wanted, reason)[1]

    def move(self, name: str, alias: str, wanted: Manifest, why: Why, may: May) -> bool:
        """Move an alias to a stored revision.

        Args:
            name: Name of the bundle.
            alias: The alias.
            wanted: Manifest of the revision to move to.
            why: Who moves it, and why a covered request may be dropped.
            may: Asked last of all.

        Returns:
            Whether it pointed elsewhere before.

        Raises:
            RefusedError: A covered request would be dropped without a reason.
        """
        while True:  # until no other client has moved it between our look and our move
            current, dropped = self._look(name, alias, wanted, why.reason)
            if dropped is None:
                return False
            if self._append(name, alias, current, wanted.revision, why, dropped, may):
                return True

    def earlier(self, name: str, alias: str) -> str:
        """Return where a rollback leads, or raise NotFoundError where the alias never pointed elsewhere."""
        target = history.earlier_target(self.state(name, alias).history)
        if target is None:
            raise NotFoundError(f"{name}:{alias}: it never pointed elsewhere; `eul promote` moves it to a revision")
        return target

    def move_back(self, name: str, alias: str, target: str, why: Why, may: May) -> bool:
        """Move an alias to its earlier target.

        Args:
            name: Name of the bundle.
            alias: The alias.
            target: What `earlier` returned.
            why: Who moves it, and why a covered request may be dropped.
            may: Asked last of all.

        Returns:
            Whether it points there now; False where another client has moved it meanwhile.

        Raises:
            RefusedError: A covered request would be dropped without a reason.
        """
        if history.earlier_target(self.state(name, alias).history) != target:
            return False  # else its manifest is there, or is missing for good: the caller has claimed it
        current, dropped = self._look(name, alias, self._manifest(name, target), why.reason)
        if current is None or history.earlier_target(current.state.history) != target:
            return False
        return dropped is None or self._append(name, alias, current, target, why, dropped, may)

    def _current(self, name: str, alias: str) -> _Current | None:
        where = f"{name}:{alias}"
        entries = self._chain(name, alias).entries()
        if not entries:
            return None
        known = self._known.get(where)
        if known is None or known.last is not entries[-1]:  # else as at the last look: no poll parses a history again
            moves = tuple(history.move_of(entry, where) for entry in entries)
            known = self._known[where] = _Current(AliasState(moves[-1].revision, moves), entries[-1])
        return known

    def _chain(self, name: str, alias: str) -> Chain:
        key = (check_name(name, "bundle"), check_name(alias, "alias"))
        if key not in self._chains:
            self._chains[key] = Chain(self._store, f"{name}:{alias}", "names", name, "aliases", alias)
        return self._chains[key]

    def _look(
        self, name: str, alias: str, wanted: Manifest, reason: str | None
    ) -> tuple[_Current | None, tuple[str, ...] | None]:
        """Return where an alias points, and what a move would drop."""
        while True:
            current = self._current(name, alias)
            try:
                return current, self._check(name, alias, current, wanted, reason)
            except NotFoundError:
                if self._current(name, alias) == current:
                    raise
                # Where it pointed when we looked was collected, after somebody had moved it on.

    def _check(
        self, name: str, alias: str, current: _Current | None, wanted: Manifest, reason: str | None
    ) -> tuple[str, ...] | None:
        if current is None:
            return ()
        if current.state.revision == wanted.revision:
            return None
        # Where what it covers now cannot be read, nobody can say what a move would bring back: the error is raised on.
        return check_unforget(f"{name}:{alias}", self._manifest(name, current.state.revision), wanted, reason)

    def _append(
        self,
        name: str,
        alias: str,
        current: _Current | None,
        revision: str,
        why: Why,
        dropped: tuple[str, ...],
        may: May,
    ) -> bool:
        facts = history.facts_of(AliasMove(act=why.act, revision=revision, at="", actor=why.actor, reason=why.reason))
        previous = current.state.revision if current else None
        self._log.append(why.act, **facts, alias=alias, dropped=list(dropped), name=name, previous=previous)
        last = current.last if current else None
        may()  # between this and the move nothing else is asked of the store
        return self._chain(name, alias).append(why.act, facts, after=last) is not None
