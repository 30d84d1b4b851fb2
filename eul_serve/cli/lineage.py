"""What a bundle was made of, as far as the registry knows: its parents, their parents, and so on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eul_serve.format import Manifest
from eul_serve.plain import plain
from eul_serve.registry import Registry

if TYPE_CHECKING:
    from rich.tree import Tree

MAX_ANCESTORS = 200
"""Most ancestors that are looked up: a bundle may be fused of thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """One bundle that another was made of."""

    revision: str
    """Its revision, `sha256:<hex>`."""
    names: tuple[str, ...]
    """The names that have it in this registry; none where it is not there."""
    requests: tuple[str, ...]
    """Ids of the requests that it covers, sorted; none where it is not there."""
    parents: tuple[Ancestor, ...]
    """What it was made of itself; left out where it was shown before, or there are too many."""


class Lineage:
    """The ancestors of one bundle."""

    def __init__(self, registry: Registry) -> None:
        """Take a registry; it is asked when ancestors are wanted."""
        self._registry = registry
        self._names: dict[str, list[str]] = {}
        self._seen: set[str] = set()

    def of(self, manifest: Manifest) -> tuple[Ancestor, ...]:
        """Return what a bundle was made of, each revision with its own parents once."""
        if not manifest.parents:
            return ()
        for name in self._registry.names():
            for revision in self._registry.revisions(name):
                self._names.setdefault(revision, []).append(name)
        return self._ancestors(manifest.parents)

    def _ancestors(self, revisions: Iterable[str]) -> tuple[Ancestor, ...]:
        return tuple(self._ancestor(revision) for revision in revisions)

    def _ancestor(self, revision: str) -> Ancestor:
        names = tuple(self._names.get(revision, ()))
        if not names or revision in self._seen or len(self._seen) >= MAX_ANCESTORS:
            return Ancestor(revision=revision, names=names, requests=(), parents=())
        self._seen.add(revision)
        manifest = self._registry.manifest(names[0], revision)
        return Ancestor(
            revision=revision,
            names=names,
            requests=tuple(sorted(manifest.request_ids)),
            parents=self._ancestors(manifest.parents),
        )


def echo_lineage(title: str, ancestors: Iterable[dict[str, Any]]) -> None:
    """Print ancestors as a tree.

    Args:
        title: What stands at its root.
        ancestors: `Ancestor`s as plain JSON.
    """
    from rich.tree import Tree

    from eul_serve.cli.text import wide_console

    tree = Tree(plain(title))
    _grow(tree, ancestors)
    wide_console().print(tree)


def _grow(tree: Tree, ancestors: Iterable[dict[str, Any]]) -> None:
    from rich.text import Text

    for one in ancestors:
        where = (
            f"{' '.join(one['names'])}@{one['revision']}" if one["names"] else f"{one['revision']}  not published here"
        )
        words = f"{where}  {' '.join(one['requests'])}".rstrip()
        _grow(tree.add(Text(plain(words))), one["parents"])
