"""A cache with a bound: what nobody uses leaves first, whoever uses it, and whoever is killed meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import CapacityError, InputError
from eul_serve.format import Bundle
from eul_serve.registry import Cache
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.conftest import write_plain_bundle

PlainBundle = Callable[..., Bundle]
COUNT = 5

HOLD = """
import sys
from pathlib import Path
from eul_serve.registry import Cache, open_registry
cache = Cache(Path(sys.argv[2]))
cache.pull(open_registry(sys.argv[1]), "poems", sys.argv[3])
print("held", flush=True)
sys.stdin.read()
"""

KILL = """
import os, shutil, signal, sys
from pathlib import Path
from eul_serve.registry import Cache
from eul_serve.registry.local import LocalRegistry

registry, before, work = map(Path, sys.argv[1:4])
CALLS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "os.truncate"}

def child(root, limit):
    cache, seen = Cache(root, int(sys.argv[5])), 0
    def hook(event, args):
        nonlocal seen
        if event in CALLS:
            seen += 1
            if seen == limit:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    cache.pull(LocalRegistry(registry), "poems", sys.argv[4])
    os._exit(0)

for limit in range(1, 1000):
    root = work / str(limit)
    shutil.copytree(before, root)
    child_id = os.fork()
    if child_id == 0:
        child(root, limit)
    _, status = os.waitpid(child_id, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalRegistry, list[str], list[int]]:
    """A registry with bundles of growing sizes: their revisions, and their bytes in a cache."""
    root = tmp_path_factory.mktemp("published")
    registry, cache = LocalRegistry(root / "registry"), Cache(root / "cache")
    bundles = [write_plain_bundle(root / str(seed), seed=seed, width=8 + 300 * seed) for seed in range(COUNT)]
    revisions = [registry.publish(bundle, "poems").revision for bundle in bundles]
    return registry, revisions, [size_of(cache.pull(registry, "poems", one).path) for one in revisions]


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


def here(root: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (root / "sha256").iterdir()}


@contextmanager
def place() -> Iterator[Path]:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as path:
        yield Path(path) / "cache"


STEPS = st.lists(
    st.tuples(st.sampled_from(["pull", "pull", "release", "remove"]), st.integers(0, COUNT - 1)), max_size=25
)


@given(steps=STEPS, spare=st.integers(0, 30_000))
@settings(max_examples=60, deadline=None)
def test_a_bound_holds_whatever_is_pulled_and_released(
    published: tuple[LocalRegistry, list[str], list[int]], steps: list[tuple[str, int]], spare: int
) -> None:
    registry, revisions, sizes = published
    most = max(sizes) + spare
    with place() as root:
        cache = Cache(root, most)
        used: list[int] = []  # what is in the cache, least recently used first
        held = [0] * COUNT
        for act, one in steps:
            if act == "release":
                cache.release(revisions[one])
                held[one] = max(0, held[one] - 1)
            elif act == "remove":
                assert cache.remove(revisions[one]) == (one in used)
                used, held[one] = [other for other in used if other != one], 0
            else:
                fits = _pull_in_the_model(one, used, held, sizes, most)
                if not fits:
                    with pytest.raises(CapacityError, match=f"has {sizes[one]} bytes, and of the {most}"):
                        cache.pull(registry, "poems", revisions[one])
                else:
                    assert cache.pull(registry, "poems", revisions[one]).revision == revisions[one]
            if root.exists() and (root / "sha256").exists():
                assert here(root) == {revisions[other] for other in used}
                assert sum(map(size_of, (root / "sha256").iterdir())) <= most
                assert not (root / "tmp").exists() or not list((root / "tmp").iterdir())


def _pull_in_the_model(one: int, used: list[int], held: list[int], sizes: list[int], most: int) -> bool:
    """Do in a list what the cache does on the disk; return whether the pull is let through."""
    if one not in used:
        for other in [other for other in used if not held[other]]:
            if sum(sizes[other] for other in used) + sizes[one] <= most:
                break
            used.remove(other)
        if sum(sizes[other] for other in used) + sizes[one] > most:
            return False
    else:
        used.remove(one)
    used.append(one)
    held[one] += 1
    return True


def test_a_bundle_that_is_larger_than_the_cache_is_refused_before_a_byte_is_copied(
    published: tuple[LocalRegistry, list[str], list[int]], tmp_path: Path
) -> None:
    registry, revisions, sizes = published
    cache = Cache(tmp_path, sizes[0])
    with pytest.raises(CapacityError, match=f"has {sizes[1]} bytes, and the cache may have {sizes[0]}; .*--cache-gib"):
        cache.pull(registry, "poems", revisions[1])
    assert not (tmp_path / "tmp").exists()
    cache.pull(registry, "poems", revisions[0])
    with pytest.raises(InputError, match="found 0"):
        Cache(tmp_path, 0)


def test_what_another_process_uses_stays_until_that_process_ends(
    published: tuple[LocalRegistry, list[str], list[int]], tmp_path: Path
) -> None:
    registry, revisions, sizes = published
    words = [sys.executable, "-c", HOLD, str(registry._root), str(tmp_path), revisions[3]]
    cache = Cache(tmp_path, sizes[3] + sizes[4] - 1)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CapacityError, match="are in use"):
            cache.pull(registry, "poems", revisions[4])
        assert revisions[3] in here(tmp_path)
        process.kill()
        process.wait()
        assert cache.pull(registry, "poems", revisions[4]).revision == revisions[4]
    assert here(tmp_path) == {revisions[4]}
    assert len(list((tmp_path / "users").iterdir())) == 1  # the dead one's is gone


def test_a_failed_pull_takes_no_room(
    published: tuple[LocalRegistry, list[str], list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, revisions, sizes = published
    cache = Cache(tmp_path, sizes[4])

    def fail(*_: object, **__: object) -> None:
        raise CapacityError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(registry, "fetch", fail)
        with pytest.raises(CapacityError, match="the disk is full"):
            cache.pull(registry, "poems", revisions[3])
    assert cache.pull(registry, "poems", revisions[4]).revision == revisions[4]


def test_removing_from_a_cache_that_is_not_there_makes_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10)
    assert not cache.remove("sha256:" + "0" * 64)
    cache.release("sha256:" + "0" * 64)
    assert not (tmp_path / "cache").exists()


def test_a_kill_in_the_middle_of_an_eviction_leaves_whole_bundles_within_the_bound(
    published: tuple[LocalRegistry, list[str], list[int]], memory_path: Path
) -> None:
    registry, revisions, sizes = published
    most = sizes[4] + sizes[0]
    (memory_path / "after").mkdir()
    for one in revisions[1:4]:
        Cache(memory_path / "before").pull(registry, "poems", one)
    places = map(str, (registry._root, memory_path / "before", memory_path / "after"))
    words = [sys.executable, "-c", KILL, *places, revisions[4], str(most)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    left = set()
    for root in (memory_path / "after").iterdir():
        left.add(frozenset(here(root)))
        # The next one finds whole bundles, clears up and keeps the bound.
        assert Cache(root, most).pull(registry, "poems", revisions[4]).revision == revisions[4]
        assert list((root / "tmp").iterdir()) == []
        assert sum(map(size_of, (root / "sha256").iterdir())) <= most
    assert {frozenset(revisions[1:4]), frozenset(revisions[2:4]), frozenset(revisions[4:])} <= left
