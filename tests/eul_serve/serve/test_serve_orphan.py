"""Engine processes leave when the server that they work for was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import os, subprocess, sys, time
from eul_serve.engine.orphan import announce_front
announce_front()
child = "import time; from eul_serve.engine.orphan import watch; watch(); watch(); print(1, flush=True); time.sleep(60)"
kind = sys.argv[1]
if kind == "spawned":
    process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    print(process.pid, flush=True)
else:
    pid = os.fork()
    if pid:
        print(pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", ["spawned", "forked"])
def test_a_child_leaves_with_its_server(kind: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, kind], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
        parent.wait()
    end = time.monotonic() + 30
    while alive(child):
        assert time.monotonic() < end, "the child outlived its server by 30 seconds"
        time.sleep(0.05)


def test_nothing_is_watched_in_other_programs() -> None:
    code = "import threading; from eul_serve.engine.orphan import watch; watch(); print(threading.active_count())"
    environment = {name: value for name, value in os.environ.items() if name != "EUL_FRONT"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout == "1\n"
