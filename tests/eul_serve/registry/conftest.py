"""An empty registry, and what must hold of every registry at every moment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eul_serve.format import read_bundle
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.registry_files import acts

Audit = Callable[[Path], None]


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    """An empty registry at `tmp_path / "registry"`."""
    return LocalRegistry(tmp_path / "registry")


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A temporary directory in memory where there is one: hundreds of registries wait for no disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as place:
        yield Path(place)


@pytest.fixture(scope="session")
def audit() -> Audit:
    """Check that a registry has no half revision, no alias without its target, and a log that tells all moves."""
    return _audit


def _audit(root: Path) -> None:
    registry = LocalRegistry(root)
    assert sum(1 for _ in registry.log.entries()) == len(acts(root))  # and none of them was changed
    for name in registry.names():
        for revision in registry.revisions(name):
            _read_whole(registry, name, revision, root.parent)
        for alias, state in registry.aliases(name).items():
            assert state.revision in registry.revisions(name)
            moves = [act for act in acts(root) if (act.get("name"), act.get("alias")) == (name, alias)]
            # A line may tell of a move whose process died before the rename; never the other way round.
            told = iter((act["act"], act["revision"], act["reason"], act["actor"]) for act in moves)
            assert all((move.act, move.revision, move.reason, move.actor) in told for move in state.history)


def _read_whole(registry: LocalRegistry, name: str, revision: str, near: Path) -> None:
    with tempfile.TemporaryDirectory(dir=near) as place:
        registry.fetch(name, revision, Path(place) / "bundle")
        bundle = read_bundle(Path(place) / "bundle")
        assert bundle.revision == revision
