"""Registries with one defence broken on purpose: the model must find each of them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from eul_serve.format import Bundle, FileEntry, Manifest
from eul_serve.registry.aliases import Aliases, May, Why
from eul_serve.registry.base import OnBytes
from eul_serve.registry.claims import Claims
from eul_serve.registry.orders import OrderAct
from eul_serve.registry.reader import manifest_key
from eul_serve.registry.store import Store
from eul_serve.registry.stored import StoredRegistry
from tests.eul_serve.registry.model.client import Defences


class NothingSpared(Claims):
    """A collector that looks at no claim."""

    def _claimed(self, *, tidy: bool) -> frozenset[str]:
        return frozenset()


class NobodyWaits(Claims):
    """A publisher that waits for no collector."""

    def _collecting(self) -> bool:
        return False


class _MoveFirst(Aliases):
    def move(self, name: str, alias: str, wanted: Manifest, why: Why, may: May) -> bool:
        current = self._current(name, alias)
        if current is not None and current.state.revision == wanted.revision:
            return False
        moved = self._append(name, alias, current, wanted.revision, why, (), may)
        self._check(name, alias, current, wanted, why.reason)
        return moved


class MovesFirst(StoredRegistry):
    """An alias is moved, and then checked."""

    def __init__(self, store: Store, recheck_seconds: float = 30.0) -> None:
        super().__init__(store, recheck_seconds)
        self.moves = _MoveFirst(store, self.manifest, self.log)


class _LogLast(Aliases):
    def _append(self, *move: object) -> bool:
        write, later = self._log.append, []
        self._log.append = lambda act, **facts: later.append((act, facts))  # type: ignore
        try:
            made = super()._append(*move)  # type: ignore[arg-type]
        finally:
            self._log.append = write  # type: ignore[method-assign]
        for act, facts in later:
            self._log.append(act, **facts)
        return made


class LogsLast(StoredRegistry):
    """An alias is moved, and then that is logged."""

    def __init__(self, store: Store, recheck_seconds: float = 30.0) -> None:
        super().__init__(store, recheck_seconds)
        self.moves = _LogLast(store, self.manifest, self.log)


class RevealsFirst(StoredRegistry):
    """A manifest is made before the blobs that it names."""

    def _put_all(self, bundle: Bundle, name: str, files: Mapping[str, FileEntry], on_bytes: OnBytes | None) -> None:
        self._reveal(bundle, name, None, lambda: None)
        super()._put_all(bundle, name, files, on_bytes)


class ClearsBlindly(StoredRegistry):
    """A publisher that removes whatever is where its manifest goes, as it was not there a moment ago."""

    def _found(self, name: str, revision: str) -> Literal["whole", "damaged", "missing"]:
        return "whole" if super()._found(name, revision) == "whole" else "damaged"

    def _clear(self, name: str, revision: str) -> None:
        self.store.remove(manifest_key(name, revision))


class LooksNoMore(StoredRegistry):
    """An alias is moved without a last look at the orders."""

    def _may(self, where: str, revision: str, claim: Callable[[], None]) -> Callable[[], None]:
        return claim


class HoldsUnclaimed(StoredRegistry):
    """A hold that no collector at work hears of."""

    def order(self, act: OrderAct, digest: str, reason: str, actor: str | None = None) -> bool:
        self.mark.check()
        return self.orders.give(act, digest, reason, actor)


BROKEN = {
    "claims ignored by the collector": Defences(claims=NothingSpared),
    "no publisher waits for a collector": Defences(claims=NobodyWaits),
    "an alias made before its check": Defences(registry=MovesFirst),
    "an alias made before it is logged": Defences(registry=LogsLast),
    "records made twice": Defences(exclusive=False),
    "a manifest made before its blobs": Defences(registry=RevealsFirst),
    "a manifest that is whole removed": Defences(registry=ClearsBlindly),
    "no last look at bans": Defences(registry=LooksNoMore),
    "holds that claim nothing": Defences(registry=HoldsUnclaimed),
}
"""What is broken, and how."""
