"""A disk that is full, as a limit on the size of files: it works for root and in a container alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.format import Bundle, Reference
from eul_serve.registry.local import LocalRegistry

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
    blobs = sorted((tmp_path / "registry" / "blobs" / "sha256").iterdir())
    done = _publish(limit, large, tmp_path / "registry")
    assert done.returncode == 6, done.stderr
    assert done.stderr.count("\n") == 1
    assert "free space and run again" in done.stderr
    assert list((tmp_path / "registry" / "tmp").iterdir()) == []
    assert sorted((tmp_path / "registry" / "blobs" / "sha256").iterdir()) == blobs
    assert registry.resolve(Reference.parse("poems")) == old.revision
    audit(tmp_path / "registry")
    assert _publish(1 << 30, large, tmp_path / "registry").returncode == 0
    assert registry.resolve(Reference.parse("poems")) == large.revision


def test_a_first_publication_leaves_an_empty_registry(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    assert _publish(100, plain_bundle(), tmp_path / "registry").returncode == 6
    assert registry.names() == []
    assert sorted(path.name for path in (tmp_path / "registry").iterdir()) == ["locks", "registry.json", "tmp"]
    assert registry.publish(plain_bundle(), "poems", "stable").new


def test_a_log_that_cannot_grow_stops_the_act_and_keeps_its_lines(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle, audit: Audit
) -> None:
    old, new = plain_bundle(), plain_bundle(seed=1)
    registry.publish(old, "poems", "stable")
    log = tmp_path / "registry" / "log.jsonl"
    filler = b'{"act":"filler","name":"x"}\n' * 100  # 2.8 kB: above every file of the bundle
    log.write_bytes(log.read_bytes() + filler)
    before = log.read_bytes()
    done = _publish(len(before) + 10, new, tmp_path / "registry")
    assert done.returncode == 6, done.stderr
    assert log.read_bytes() == before
    assert registry.revisions("poems") == [old.revision]
    audit(tmp_path / "registry")


def test_a_torn_line_of_a_killed_writer_stays_on_a_line_of_its_own(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    registry.publish(plain_bundle(), "poems")
    log = tmp_path / "registry" / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"act":"to')
    registry.publish(plain_bundle(), "poems", "stable")
    lines = log.read_bytes().splitlines()
    assert lines[1] == b'{"act":"to'
    assert lines[2].startswith(b'{"act":"publish"')
