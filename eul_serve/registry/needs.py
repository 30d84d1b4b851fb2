"""Why a revision stays in a registry: what a collection asks of each."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from itertools import pairwise

from eul_serve.errors import BundleFormatError
from eul_serve.format import Manifest
from eul_serve.registry.base import AliasMove, AliasState
from eul_serve.registry.orders import Standing
from eul_serve.registry.reader import manifest_key
from eul_serve.registry.stored import StoredRegistry


class Needs:
    """What is needed at one moment; safe for several threads."""

    def __init__(self, registry: StoredRegistry, names: Iterable[str], claimed: frozenset[str]) -> None:
        """Read what stands.

        Args:
            registry: The registry.
            names: Whose aliases to read.
            claimed: What publishers under way are about to name.
        """
        self._registry, self._claimed = registry, claimed
        self._standing: Standing = registry.standing()
        self._aliases: Mapping[str, Mapping[str, AliasState]] = {name: registry.aliases(name) for name in set(names)}

    def now(self, name: str, manifest: Manifest) -> str | None:
        """Return why a revision is needed at this moment: aliased, held or claimed; None where it is not."""
        for alias, state in self._aliases[name].items():
            if state.revision == manifest.revision:
                return f"aliased by {name}:{alias}"
        if order := self._standing.held.get(manifest.revision):
            return f"held since {order.at}: {order.reason}"
        return "claimed by a publication under way" if manifest.revision in self._claimed else None

    def lately(self, name: str, manifest: Manifest, days: float) -> str | None:
        """Return why a revision may still be wanted; None where it is not, or was deleted for good.

        Args:
            name: Name of the bundle.
            manifest: Its manifest.
            days: How long a revision stays after it was published, or was last behind an alias.

        Returns:
            The reason, for people.
        """
        if manifest.revision in self._standing.deleted:
            return None  # whoever deleted it was cut off
        age = self._registry.store.age(manifest_key(name, manifest.revision))
        if age is None or age < days * 86400:
            return f"published less than {days:g} days ago"
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        for alias, state in self._aliases[name].items():
            for move, following in pairwise(state.history):
                if move.revision == manifest.revision and _moment(f"{name}:{alias}", following) > since:
                    return f"behind {name}:{alias} less than {days:g} days ago"
        return None


def _moment(where: str, move: AliasMove) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(move.at).astimezone(datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise BundleFormatError(f"{where}: a move's time: expected ISO 8601, found {move.at!r:.50}") from error
