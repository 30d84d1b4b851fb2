"""The audit log: whatever is changed in it is seen, and a kill or a full disk leaves it whole."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.audit import AuditLog, read_chain
from eul_serve.audit.chain import START
from eul_serve.errors import BundleFormatError, CapacityError, InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of five acts."""
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, clock=lambda: "2026-11-27T00:00:00.000+00:00") as log:
        for number in range(5):
            log.record("swap", alias=f"poems:{number}", revision="sha256:" + str(number) * 64)
    return path


def test_acts_are_read_as_they_were_written(path: Path) -> None:
    entries = list(read_chain(path))
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[0].before == START
    assert entries[3].facts == {"alias": "poems:3", "revision": "sha256:" + "3" * 64}
    # Golden: whoever checks a log in ten years needs this form. The digest is of the line without it.
    assert path.read_bytes().splitlines()[0].decode() == (
        '{"act":"swap","at":"2026-11-27T00:00:00.000+00:00","before":"' + START + '","digest":"'
        + entries[0].digest + '","facts":{"alias":"poems:0","revision":"sha256:' + "0" * 64 + '"},"number":1}'
    )  # fmt: skip
    without = {name: value for name, value in json.loads(path.read_bytes().splitlines()[0]).items() if name != "digest"}
    plain = json.dumps(without, sort_keys=True, separators=(",", ":")).encode()
    assert entries[0].digest == "sha256:" + hashlib.sha256(plain).hexdigest()


def test_a_log_goes_on_where_it_was(path: Path) -> None:
    with AuditLog(path) as log:
        assert len(log) == 5
        log.record("drain")
    assert [entry.act for entry in read_chain(path)][-1] == "drain"
    assert len(list(read_chain(path))) == 6


@pytest.mark.parametrize("place", range(5))
def test_every_changed_byte_of_a_line_that_is_not_the_last_is_seen(path: Path, place: int) -> None:
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    start = sum(map(len, lines[:place]))
    for index in range(start, start + len(lines[place]) - 1):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        if place < 4:
            with pytest.raises(BundleFormatError, match="something was changed"):
                list(read_chain(path))
        else:  # the last one is lost, not believed: its digest, kept elsewhere, would tell
            assert len(list(read_chain(path))) == 4


@pytest.mark.parametrize("change", ["taken out", "moved", "added", "doubled"])
def test_whole_lines_that_are_not_where_they_were_are_seen(path: Path, tmp_path: Path, change: str) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    with AuditLog(tmp_path / "other.jsonl") as log:
        log.record("swap", alias="forged")
    forged = (tmp_path / "other.jsonl").read_bytes()
    changed = {
        "taken out": lines[:2] + lines[3:],
        "moved": [lines[1], lines[0], *lines[2:]],
        "added": [*lines[:2], forged, *lines[2:]],
        "doubled": [*lines[:2], lines[1], *lines[2:]],
    }[change]
    path.write_bytes(b"".join(changed))
    with pytest.raises(BundleFormatError, match=r"line [123]"):
        list(read_chain(path))
    with pytest.raises(BundleFormatError):  # and a server does not go on with it
        AuditLog(path)
    path.write_bytes(b"".join(lines))
    with AuditLog(path) as log:  # whose lock is free again
        assert len(log) == 5


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        assert list(read_chain(Path(file.name))) == []


def test_half_a_line_stays_as_evidence_and_harms_nothing(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"act":"swap","at":"20')
    with AuditLog(path) as log:
        assert len(log) == 5
        log.record("start")
    assert [entry.act for entry in read_chain(path)] == ["swap"] * 5 + ["start"]
    assert b'"at":"20\n' in path.read_bytes()


def test_two_servers_never_write_one_log(path: Path) -> None:
    with AuditLog(path), pytest.raises(InputError, match="another server writes it"):
        AuditLog(path)
    AuditLog(path).__exit__(None, None, None)


def test_a_log_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for wrong in (tmp_path / "no" / "folder", tmp_path, tmp_path / "link"):
        with pytest.raises(InputError, match="cannot open"):
            AuditLog(wrong)
    with pytest.raises(InputError, match="cannot read"):
        list(read_chain(tmp_path / "missing"))


def test_a_full_disk_leaves_the_log_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    with AuditLog(path) as log:
        real = os.write

        def full(descriptor: int, data: Any) -> int:
            real(descriptor, bytes(data)[:7])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(CapacityError, match="No space left"):
            log.record("drain")
        monkeypatch.undo()
        assert path.read_bytes() == before
        log.record("drain")
    assert [entry.act for entry in read_chain(path)][-1] == "drain"


def test_kills_at_random_moments_leave_a_log_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    code = (
        "import sys, pathlib; from eul_serve.audit import AuditLog\n"
        "log = AuditLog(pathlib.Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "while True: log.record('swap', alias='x' * 500)\n"
    )
    seen = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        count = len(list(read_chain(path)))
        assert count > seen
        seen = count
