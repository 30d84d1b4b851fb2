"""A newcomer follows `docs/how-to/operate.md`: every command of it is run, in order, on the real engine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eul_serve.audit import read_chain

pytestmark = [pytest.mark.engine, pytest.mark.tools]
ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "how-to" / "operate.md"
PORTS = ("8500", "8501", "8502", "8503", "9500", "9090")


def free_ports(count: int) -> list[str]:
    """Ports that nobody listens on."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def script() -> str:
    """The page's commands; what it started ends with it, whatever happens."""
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    for old, new in zip(PORTS, free_ports(len(PORTS)), strict=True):
        text = text.replace(f":{old}", f":{new}")
    return f"set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\nset -x\n{text}"


def test_every_command_of_the_page(tmp_path: Path, tiny_model: Path, make_bundle: Any) -> None:
    first = make_bundle(tmp_path / "first", tiny_model, seed=1, requests=("r1",))
    second = make_bundle(tmp_path / "second", tiny_model, seed=2, requests=("r1", "r2"))
    work = tmp_path / "work"
    work.mkdir()
    path = [str(Path(sys.executable).parent), str(ROOT / ".tools" / "prometheus" / "usr" / "bin"), os.environ["PATH"]]
    variables = {
        "PATH": os.pathsep.join(path), "REPO": str(ROOT), "MODEL": str(tiny_model), "FIRST": str(first.path),
        "SECOND": str(second.path),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script()], cwd=work, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300
    )
    told = f"{done.stdout}\n{done.stderr[-6000:]}"
    assert done.returncode == 0, told
    assert done.stderr.count(f"[{first.revision}, ") == 1, told
    assert done.stderr.count(f"[{second.revision}, ") == 2, told
    acts = [entry.act for entry in read_chain(work / "audit.jsonl")]
    assert acts[:3] == ["start", "swap", "pin"]
    assert acts[-2:] == ["drain", "stop"]
    assert {"activate", "swap", "reload_policy", "policy"} <= set(acts)
    for secret in ("acme.txt", "ana.txt"):
        token = (work / secret).read_text().split()[1]
        assert token not in (work / "server.log").read_text() + (work / "audit.jsonl").read_text()
