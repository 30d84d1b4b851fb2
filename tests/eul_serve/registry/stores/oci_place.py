"""An empty place in a real OCI registry: Debian's docker-registry, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eul_serve.registry.oci import OciStore

ROOT = Path(__file__).resolve().parents[4]
PROGRAMS = ROOT / ".tools" / "registries" / "usr" / "bin"
DELAY, HOLD = 0.2, 2.0
"""Seconds: on one machine a write takes milliseconds, unless the machine is busy."""
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:[0-9]+)")


def program(name: str) -> str:
    """Path of a program that `.ci/registries` brings, which is brought now where it is missing."""
    if not (PROGRAMS / name).exists():
        subprocess.run([ROOT / ".ci" / "registries"], check=True, timeout=300)
    assert (PROGRAMS / name).exists(), f"no {name}: .ci/registries could not bring it"
    return str(PROGRAMS / name)


@contextmanager
def running_registry(folder: Path, *, deletion: bool = True) -> Iterator[str]:
    """Run docker-registry on a free port, and yield its host and port."""
    config, log = folder / "config.yml", folder / "log"
    storage = {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": deletion}}
    # JSON is YAML.
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": "127.0.0.1:0"}}))
    with log.open("wb") as written:
        line = [program("docker-registry"), "serve", str(config)]
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        process = subprocess.Popen(line, env=environment, stdout=written, stderr=written)
    try:
        yield _address(process, log)
    finally:
        process.kill()
        process.wait(10)


@contextmanager
def oci_place() -> Iterator[Callable[[], OciStore]]:
    """Yield a function that opens a new client of one empty place."""
    with tempfile.TemporaryDirectory() as folder, running_registry(Path(folder)) as host:
        yield lambda: OciStore(f"oci://{host}/team/layers", delay=DELAY, hold=HOLD)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if found := _LISTENING.search(log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"docker-registry does not start: {log.read_text()[-500:]}")
