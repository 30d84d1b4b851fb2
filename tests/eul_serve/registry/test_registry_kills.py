"""A publisher, promoter or puller that is killed before any one of its system calls.

A driver without threads forks one child for each call that the act makes on the file system; an audit hook in the child
kills it with SIGKILL just before that call. What it left behind must be the old state or the new one, and the next
publisher must find its way and clear up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.errors import RefusedError
from eul_serve.format import Bundle, Reference
from eul_serve.registry import Cache
from eul_serve.registry.collect import Collector
from eul_serve.registry.local import LocalRegistry

PlainBundle = Callable[..., Bundle]
Audit = Callable[[Path], None]

DRIVER = """
import os, shutil, signal, sys
from pathlib import Path
from eul_serve.format import read_bundle
from eul_serve.registry import Cache
from eul_serve.registry.collect import Collector
from eul_serve.registry.local import LocalRegistry

act, source, work, bundle = sys.argv[1], *map(Path, sys.argv[2:])
CALLS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.truncate", "fcntl.flock"}

def run(root):
    registry, made = LocalRegistry(root / "registry"), read_bundle(bundle)
    if act == "publish":
        return lambda: registry.publish(made, "poems", "stable")
    if act == "promote":
        return lambda: registry.promote("poems", made.revision, "stable")
    if act == "rollback":
        return lambda: registry.rollback("poems", "stable")
    if act == "collect":
        return lambda: Collector(registry, keep_days=0).collect()
    if act == "delete":
        return lambda: Collector(registry).delete_request("r1", "a test")
    return lambda: Cache(root / "cache").pull(registry, "poems", made.revision)

def child(root, limit):
    call, seen = run(root), 0
    def hook(event, args):
        nonlocal seen
        if event in CALLS:
            seen += 1
            if seen == limit:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    call()
    os._exit(0)

for limit in range(1, 1000):
    root = work / str(limit)
    shutil.copytree(source, root)
    child_id = os.fork()
    if child_id == 0:
        child(root, limit)
    _, status = os.waitpid(child_id, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


@pytest.fixture
def killed(memory_path: Path) -> Callable[[str, Bundle], list[Path]]:
    """Run an act once for each of its calls; return the directories that the killed ones left, and the finished one."""

    def run(act: str, bundle: Bundle) -> list[Path]:
        words = [
            sys.executable,
            "-c",
            DRIVER,
            act,
            str(memory_path / "before"),
            str(memory_path / "after"),
            str(bundle.path),
        ]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return sorted((memory_path / "after").iterdir(), key=lambda path: int(path.name))

    return run


@pytest.mark.parametrize("act", ["publish", "promote", "rollback"])
def test_a_kill_leaves_the_old_state_or_the_new_one(
    memory_path: Path, plain_bundle: PlainBundle, audit: Audit, killed: Callable[[str, Bundle], list[Path]], act: str
) -> None:
    old, new, more = plain_bundle("r1", seed=0), plain_bundle("r1", seed=1), plain_bundle("r1", seed=2)
    before = LocalRegistry(memory_path / "before" / "registry")
    if act == "rollback":
        before.publish(new, "poems", "stable")
    if act == "promote":
        before.publish(new, "poems")
    before.publish(old, "poems", "stable")
    places = killed(act, new)
    # A rename, two locks and a log at the very least: fewer means that the hook saw nothing.
    assert len(places) > 15
    seen = set()
    for place in places:
        registry = LocalRegistry(place / "registry")
        audit(place / "registry")
        current = registry.resolve(Reference.parse("poems"))
        seen.add(current)
        registry.publish(more, "poems", "stable")
        assert registry.resolve(Reference.parse("poems")) == more.revision
        assert list((place / "registry" / "tmp").iterdir()) == []
        audit(place / "registry")
    assert seen == {old.revision, new.revision}
    assert current == new.revision


def test_a_kill_during_the_first_publication_is_no_obstacle(
    memory_path: Path, plain_bundle: PlainBundle, audit: Audit, killed: Callable[[str, Bundle], list[Path]]
) -> None:
    (memory_path / "before").mkdir()
    bundle = plain_bundle()
    for place in killed("publish", bundle):
        registry = LocalRegistry(place / "registry")
        registry.publish(bundle, "poems", "stable")
        assert registry.resolve(Reference.parse("poems")) == bundle.revision
        audit(place / "registry")


def test_a_kill_during_a_pull_leaves_no_half_bundle(
    memory_path: Path, plain_bundle: PlainBundle, killed: Callable[[str, Bundle], list[Path]]
) -> None:
    bundle = plain_bundle()
    LocalRegistry(memory_path / "before" / "registry").publish(bundle, "poems", "stable")
    pulled = 0
    for place in killed("pull", bundle):
        cached = place / "cache" / "sha256" / bundle.revision.removeprefix("sha256:")
        if cached.exists():
            shutil.rmtree(place / "registry")
            pulled += 1
        assert Cache(place / "cache").pull(LocalRegistry(place / "registry"), "poems", bundle.revision).path == cached
        assert list((place / "cache" / "tmp").iterdir()) == []
    assert pulled >= 1


@pytest.mark.parametrize("act", ["collect", "delete"])
def test_a_kill_during_a_collection_leaves_whole_revisions_and_the_next_one_goes_on(
    memory_path: Path, plain_bundle: PlainBundle, audit: Audit, killed: Callable[[str, Bundle], list[Path]], act: str
) -> None:
    kept, old = plain_bundle("r2", seed=0), plain_bundle("r1", seed=1)
    before = LocalRegistry(memory_path / "before" / "registry")
    before.publish(old, "poems", signatures=[b"{}"])
    before.publish(kept, "poems", "stable")
    left = set()
    for place in killed(act, old):
        root = place / "registry"
        audit(root)
        registry = LocalRegistry(root)
        assert registry.resolve(Reference.parse("poems")) == kept.revision
        left.add((old.revision in registry.revisions("poems"), len(list((root / "blobs" / "sha256").iterdir()))))
        for path in [*(root / "claims").iterdir(), *(root / "blobs" / "sha256").iterdir()]:
            os.utime(path, (time.time() - 2 * 86400,) * 2)  # a day later
        Collector(registry, keep_days=0).collect()
        assert registry.revisions("poems") == [kept.revision]
        assert len(list((root / "blobs" / "sha256").iterdir())) == 3
        assert list((root / "claims").iterdir()) == []
        if act == "delete" and old.revision in registry.standing().deleted:
            with pytest.raises(RefusedError):
                registry.publish(old, "poems")
        audit(root)
    # Weights are of one revision alone, config and card of both: before, in between, and after.
    assert left == {(True, 4), (False, 4), (False, 3)}
