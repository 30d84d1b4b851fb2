"""What a registry must be like after each change of its store: a sequential model, told of one change after another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eul_serve.registry.store import MARK
from tests.eul_serve.registry.model.memory_store import Change

Name = str
Revision = str
ENDS = {"release": "hold", "lift": "ban"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One move of an alias."""

    client: int
    """Who made its record."""
    step: int
    """When, in operations of all clients."""
    act: str
    """What moved it."""
    revision: Revision
    """Where to."""


class Model:
    """All that is published, and each breach of a promise."""

    def __init__(self, covers: Mapping[Revision, frozenset[str]]) -> None:
        self._covers = covers
        self.step = 0
        self.last: dict[int, int] = {}
        """For each client when it did the operation before its present one."""
        self.made = False
        self.revisions: dict[tuple[Name, Revision], int] = {}
        """What is listed, with the step at which it appeared."""
        self.damaged: dict[tuple[Name, Revision], int] = {}
        """What somebody spoiled, with the step at which that was, until it is stored again."""
        self.repaired = -1
        self.moves: dict[tuple[Name, str], list[Moved]] = {}
        self.stacks: dict[tuple[Name, str], list[Revision]] = {}
        self.standing: dict[str, dict[Revision, int]] = {"hold": {}, "ban": {}, "delete": {}}
        self.orders: list[tuple[int, int, str, Revision]] = []
        self.signed: set[tuple[Name, Revision]] = set()
        """Revisions whose publication with a signature was acknowledged."""
        self.collecting: set[int] = set()
        """Clients whose present act collects."""
        self.problems: list[str] = []
        self._logged: Counter[tuple[object, ...]] = Counter()
        self._seen: Counter[tuple[object, ...]] = Counter()

    def see(self, change: Change) -> None:
        """Take in one change of the store."""
        rooms: dict[str, Callable[[Change], None]] = {"log": self._log, "orders": self._order, "names": self._name}
        self.made = self.made or change.key == MARK
        if see := rooms.get(change.key[0]):
            see(change)

    def problem(self, words: str) -> None:
        """Say what was broken."""
        self.problems.append(f"operation {self.step}: {words}")

    def current(self, name: Name, alias: str) -> Revision | None:
        """Return where an alias points."""
        moves = self.moves.get((name, alias))
        return moves[-1].revision if moves else None

    def pointed(self, name: Name, alias: str, since: int) -> set[Revision]:
        """Return where an alias pointed at some time since a step."""
        moves = self.moves.get((name, alias), [])
        before = [move.revision for move in moves if move.step < since]
        return {*before[-1:], *(move.revision for move in moves if move.step >= since)}

    def was_absent(self, name: Name, revision: Revision, since: int) -> bool:
        """Return whether a revision was not there at some time since a step."""
        return self.revisions.get((name, revision), self.step) >= since

    def was_damage(self, since: int) -> bool:
        """Return whether anything was damaged at some time since a step."""
        return bool(self.damaged) or self.repaired >= since

    def needed(self, name: Name, revision: Revision) -> str | None:
        """Return why a revision may not go; None where it may."""
        if any(of == name and moves[-1].revision == revision for (of, _), moves in self.moves.items()):
            return "aliased"
        return "held" if revision in self.standing["hold"] else None

    def _log(self, change: Change) -> None:
        entry = self._entry(change)
        facts = entry["facts"]
        self._logged[
            entry["act"], facts.get("name"), facts.get("alias"), facts.get("revision", facts.get("digest"))
        ] += 1

    def _order(self, change: Change) -> None:
        entry = self._entry(change)
        act, digest = entry["act"], entry["facts"]["digest"]
        self._must_be_logged(act, None, None, digest)
        self.orders.append((change.client, self.step, act, digest))
        if act in ENDS:
            self.standing[ENDS[act]].pop(digest, None)
        else:
            self.standing[act][digest] = self.step

    def _name(self, change: Change) -> None:
        room = change.key[2]
        if room == "aliases":
            self._move(change)
        elif room == "revisions":
            self._revision(change)

    def _revision(self, change: Change) -> None:
        name, revision = change.key[1], f"sha256:{change.key[3].removesuffix('.json')}"
        if change.after is None:
            self._removed(change.client, name, revision)
            return
        self._must_be_logged("store", name, None, revision)
        if revision in self.standing["delete"]:
            self.problem(f"{name}@{revision} came back after it was deleted")
        self.revisions[name, revision] = self.step
        if self.damaged.pop((name, revision), None) is not None:
            self.repaired = self.step

    def _removed(self, client: int, name: Name, revision: Revision) -> None:
        if client in self.collecting:
            self._must_be_logged("collect", name, None, revision)
            if reason := self.needed(name, revision):
                self.problem(f"{name}@{revision} was collected while it was {reason}")
            if self.damaged.pop((name, revision), None) is not None:
                self.repaired = self.step
        elif (name, revision) not in self.damaged:
            self.problem(f"{name}@{revision} was whole, and a publisher removed it")
        self.revisions.pop((name, revision), None)
        self.signed.discard((name, revision))

    def _move(self, change: Change) -> None:
        entry, (_, name, _, alias, _) = self._entry(change), change.key
        act, revision, where = entry["act"], entry["facts"]["revision"], f"{name}:{alias}"
        self._must_be_logged(act, name, alias, revision)
        before, stack = self.current(name, alias), self.stacks.setdefault((name, alias), [])
        if (name, revision) not in self.revisions and (name, revision) not in self.damaged:
            self.problem(f"{where} was moved to {revision}, which is not listed")
        if before is not None and self._covers[before] - self._covers[revision] and not entry["facts"]["reason"]:
            self.problem(f"{where} was moved from {before} to {revision} and un-forgets without a reason")
        for order in ("ban", "delete"):
            # Nothing makes two records at once: the client's last look at the orders may be one operation old.
            if self.standing[order].get(revision, self.step) < self.last.get(change.client, 0):
                self.problem(f"{where} was moved to {revision} after the {order}")
        if act != "rollback":
            stack.append(revision)
        elif stack.pop() and stack[-1:] != [revision]:
            self.problem(f"{where} was rolled back to {revision}, which is not where it was before: {stack[-1:]}")
        move = Moved(client=change.client, step=self.step, act=act, revision=revision)
        self.moves.setdefault((name, alias), []).append(move)

    def _entry(self, change: Change) -> dict[str, Any]:
        if change.before is not None or change.after is None:
            self.problem(f"record {'/'.join(change.key)} was {'changed' if change.after else 'removed'}")
        entry: dict[str, Any] = json.loads(change.after or change.before or b"")
        return entry

    def _must_be_logged(self, act: object, name: Name | None, alias: str | None, digest: Revision) -> None:
        what = act, name, alias, digest
        self._seen[what] += 1
        if self._seen[what] > self._logged[what]:
            self.problem(f"{act} of {name}:{alias}@{digest} was seen before it was in the log")
