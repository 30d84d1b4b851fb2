"""Four processes that publish and promote at once, while this one reads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from eul_serve.errors import NotFoundError
from eul_serve.format import Bundle, Reference, read_bundle
from eul_serve.registry.directory_store import DirectoryStore
from eul_serve.registry.local import LocalRegistry
from eul_serve.registry.store import LAYOUT, MARK, Key
from tests.eul_serve.registry_files import alias_files

PlainBundle = Callable[..., Bundle]
Audit = Callable[[Path], None]

WRITERS = 4
WRITER = """
import random, sys
from pathlib import Path
from eul_serve.errors import NotFoundError, RefusedError
from eul_serve.format import read_bundle
from eul_serve.registry.directory_store import DirectoryStore
from eul_serve.registry.local import LocalRegistry
from eul_serve.registry.store import LAYOUT, MARK, Key

registry, mine = LocalRegistry(Path(sys.argv[1])), random.Random(int(sys.argv[2]))
bundles = [read_bundle(Path(path)) for path in sys.argv[3:]]
for _ in range(15):
    reason = mine.choice([None, "a test"])
    try:
        if mine.random() < 0.5:
            registry.publish(mine.choice(bundles), "poems", "stable", allow_unforget=reason, actor=sys.argv[2])
        elif mine.random() < 0.5:
            registry.promote("poems", mine.choice(bundles).revision, "stable", allow_unforget=reason, actor=sys.argv[2])
        else:
            registry.rollback("poems", "stable", allow_unforget=reason, actor=sys.argv[2])
    except (RefusedError, NotFoundError):
        pass
"""


def test_writers_lose_nothing_and_readers_see_whole_revisions(
    tmp_path: Path, plain_bundle: PlainBundle, audit: Audit
) -> None:
    root = tmp_path / "registry"
    bundles = [
        plain_bundle(*requests, seed=seed) for seed, requests in enumerate((["r1"], ["r1", "r2"], ["r2"], ["r1"]))
    ]
    paths = [str(bundle.path) for bundle in bundles]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), str(seed), *paths], stderr=subprocess.PIPE, text=True
        )
        for seed in range(WRITERS)
    ]
    registry, reads = LocalRegistry(root), 0
    try:
        while any(writer.poll() is None for writer in writers):
            reads += _read(registry, tmp_path / f"read-{reads}")
    finally:
        ends = [(writer.communicate(timeout=60)[1], writer.returncode) for writer in writers]
    assert ends == [("", 0)] * WRITERS
    assert reads > 0
    audit(root)
    assert list((root / "tmp").iterdir()) == []
    covers = {bundle.revision: bundle.manifest.request_ids for bundle in bundles}
    history = registry.aliases("poems")["stable"].history
    for earlier, later in pairwise(history):
        assert earlier.revision != later.revision
        assert covers[later.revision] >= covers[earlier.revision] or later.reason == "a test"


def _read(registry: LocalRegistry, place: Path) -> int:
    try:
        revision = registry.resolve(Reference.parse("poems"))
    except NotFoundError:
        return 0  # nothing is published yet
    registry.fetch("poems", revision, place)
    assert read_bundle(place).revision == revision
    return 1


@pytest.mark.parametrize("actor", ["ann", "bob"])
def test_a_second_writer_waits_for_no_reader(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle, actor: str
) -> None:
    bundle = plain_bundle()
    registry.publish(bundle, "poems", "stable", actor=actor)
    with open(alias_files(tmp_path / "registry", "poems", "stable")[-1], "rb") as held:
        registry.publish(plain_bundle(seed=1), "poems", "stable", actor=actor)
        assert bundle.revision.encode() in held.read()
    assert [move.actor for move in registry.aliases("poems")["stable"].history] == [actor, actor]


def test_a_registry_that_another_client_makes_at_this_moment_is_used(
    tmp_path: Path, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, read, looks = plain_bundle(), DirectoryStore.read, []

    def slow(store: DirectoryStore, key: Key) -> bytes | None:
        looks.append(key)
        found = read(store, key)
        if len(looks) == 1:
            store.create(MARK, LAYOUT)  # the other client, after our look and before the next one
        return found

    monkeypatch.setattr(DirectoryStore, "read", slow)
    registry = LocalRegistry(tmp_path / "registry")
    assert registry.publish(bundle, "poems").new
    assert looks[0] == MARK
