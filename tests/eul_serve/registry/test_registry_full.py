"""A disk that is full, as a limit on the size of files: it works for root and in a container alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.errors import CapacityError
from eul_serve.format import Bundle, Reference
from eul_serve.registry.local import LocalRegistry
from eul_serve.registry.store import Key
from tests.eul_serve.registry_files import acts

PlainBundle = Callable[..., Bundle]
Audit = Callable[[Path], None]

LIMITED = """
import resource, sys
from eul_serve.cli.main import group
from eul_serve.cli import publish
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), hard))
try:
    group.main(sys.argv[2:])
except SystemExit as leaving:
    status = leaving.code
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
sys.exit(status)
"""


def _publish(limit: int, bundle: Bundle, root: Path) -> subprocess.CompletedProcess[str]:
    words = [
        "publish",
        str(bundle.path),
        "--registry",
        str(root),
        "--name",
        "poems",
        "--alias",
        "stable",
        "--actor",
        "a",
    ]
    command = [sys.executable, "-c", LIMITED, str(limit), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("limit", [0, 5, 100, 400, 50_000])
def test_nothing_is_left_and_the_old_state_stands(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle, audit: Audit, limit: int
) -> None:
    old, large = plain_bundle(), plain_bundle(rank=8, width=2000)  # 8 * 2000 * 2 * 4 bytes: 128 kB
    registry.publish(old, "poems", "stable")
    done = _publish(limit, large, tmp_path / "registry")
    assert done.returncode == 6, done.stderr
    assert done.stderr.count("\n") == 1
    assert "free space and run again" in done.stderr
    assert not list((tmp_path / "registry" / "tmp").glob("*.part"))
    assert list((tmp_path / "registry" / "claims").iterdir()) == []
    assert registry.resolve(Reference.parse("poems")) == old.revision
    audit(tmp_path / "registry")
    assert _publish(1 << 30, large, tmp_path / "registry").returncode == 0
    assert registry.resolve(Reference.parse("poems")) == large.revision


def test_a_first_publication_leaves_an_empty_registry(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    assert _publish(100, plain_bundle(), tmp_path / "registry").returncode == 6
    assert registry.names() == []
    assert not {path.name for path in (tmp_path / "registry").iterdir()} & {"names", "log"}
    assert registry.publish(plain_bundle(), "poems", "stable").new


def test_a_log_that_cannot_grow_stops_the_act(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = plain_bundle(), plain_bundle(seed=1)
    registry.publish(old, "poems", "stable")
    before = acts(tmp_path / "registry")
    create = registry.store.create

    def full(key: Key, data: bytes) -> bool:
        if key[0] == "log":
            raise CapacityError("no room")
        return create(key, data)

    monkeypatch.setattr(registry.store, "create", full)
    with pytest.raises(CapacityError):
        registry.publish(new, "poems", "stable")
    with pytest.raises(CapacityError):
        registry.order("ban", old.revision, "a leak")
    assert acts(tmp_path / "registry") == before
    assert registry.revisions("poems") == [old.revision]
    assert registry.standing().banned == {}
    audit(tmp_path / "registry")
