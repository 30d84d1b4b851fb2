"""Moving an alias: under its name's lock, by the un-forget rule, logged before it is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eul_serve.errors import NotFoundError
from eul_serve.format import Manifest, check_name
from eul_serve.moment import utc_now
from eul_serve.registry import history
from eul_serve.registry.base import Act, AliasMove, AliasState
from eul_serve.registry.disk import disk_errors
from eul_serve.registry.log import ActLog
from eul_serve.registry.tree import Staging, Tree
from eul_serve.registry.unforget import check_reason, check_unforget


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


class Aliases:
    """The aliases of one registry."""

    def __init__(self, tree: Tree, manifest: Callable[[str, str], Manifest]) -> None:
        self._tree = tree
        self._manifest = manifest
        self._log = ActLog(tree)

    def state(self, name: str, alias: str) -> AliasState:
        """Return where an alias points, or raise where it is missing (NotFoundError) or damaged (BundleFormatError)."""
        where = f"{name}:{alias}"
        with disk_errors(where, "`eul list` shows what is published"):
            data = self._tree.read(*_parts(name, alias), limit=history.MAX_ALIAS_BYTES)
        return history.from_bytes(data, where)

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
        state = self._current(name, alias)
        if state is None:
            return ()
        if state.revision == wanted.revision:
            return None
        return check_unforget(f"{name}:{alias}", self._manifest(name, state.revision), wanted, reason)

    def move(self, name: str, alias: str, wanted: Manifest, why: Why, staged: Staging) -> bool:
        """Move an alias to a stored revision; return whether it pointed elsewhere before."""
        with self._tree.locked("locks", f"{name}.name"):
            return self._move(name, alias, wanted, why, staged)

    def move_back(self, name: str, alias: str, why: Why, staged: Staging) -> str:
        """Move an alias to its earlier target and return that revision, or raise NotFoundError where there is none."""
        with self._tree.locked("locks", f"{name}.name"):
            target = history.earlier_target(self.state(name, alias).history)
            if target is None:
                raise NotFoundError(f"{name}:{alias}: it never pointed elsewhere; `eul promote` moves it to a revision")
            self._move(name, alias, self._manifest(name, target), why, staged)
        return target

    def _current(self, name: str, alias: str) -> AliasState | None:
        try:
            return self.state(name, alias)
        except NotFoundError:
            return None

    def _move(self, name: str, alias: str, wanted: Manifest, why: Why, staged: Staging) -> bool:
        dropped = self.check(name, alias, wanted, why.reason)
        if dropped is None:
            return False
        state = self._current(name, alias)
        move = AliasMove(
            act=why.act, revision=wanted.revision, at=utc_now("seconds"), actor=why.actor, reason=why.reason
        )
        staged.add([history.to_bytes(history.extend(state, move))], *_parts(name, alias))
        self._record(name, alias, move, state, dropped)
        staged.place()
        return True

    def _record(
        self, name: str, alias: str, move: AliasMove, state: AliasState | None, dropped: tuple[str, ...]
    ) -> None:
        self._log.append(
            {
                "act": move.act,
                "actor": move.actor,
                "alias": alias,
                "at": move.at,
                "dropped": dropped,
                "name": name,
                "previous": state.revision if state else None,
                "reason": move.reason,
                "revision": move.revision,
            }
        )

    def record_publication(self, name: str, revision: str, actor: str | None) -> None:
        """Log that a revision was stored."""
        self._log.append({"act": "store", "actor": actor, "at": utc_now("seconds"), "name": name, "revision": revision})


def _parts(name: str, alias: str) -> tuple[str, ...]:
    check_name(name, "bundle")
    return ("names", name, "aliases", f"{check_name(alias, 'alias')}.json")
