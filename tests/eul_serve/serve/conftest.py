"""Servers as processes: on the fake engine, and once in a session on the real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.eul_serve.service_home import ServiceHome

MAIN = "from eul_serve.cli.main import main; main()"
FAKE_SERVER = Path(__file__).with_name("fake_server.py")


@dataclass(frozen=True, slots=True)
class Process:
    """A server in a process of its own."""

    popen: subprocess.Popen[str]
    listen: str
    metrics: str
    openai: str = ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit status."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout=60)


@contextmanager
def started(command: list[str], ready: Path, wait_seconds: float, **variables: str) -> Iterator[Process]:
    """Run a server until it says that it is ready; kill it at the end, whatever happened."""
    ready.unlink(missing_ok=True)
    popen = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, **variables},
    )  # fmt: skip
    try:
        end = time.monotonic() + wait_seconds
        while not ready.exists():
            if popen.poll() is not None or time.monotonic() > end:
                with suppress(ProcessLookupError):  # with its engine, which would hold the pipes open
                    os.killpg(popen.pid, signal.SIGKILL)
                raise AssertionError(f"the server did not become ready: {popen.communicate()[1][-3000:]}")
            time.sleep(0.02)
        told = json.loads(ready.read_text())
        yield Process(popen, told["listen"], told["metrics"], told.get("openai", ""))
    finally:
        if popen.poll() is None:
            os.killpg(popen.pid, signal.SIGKILL)
        popen.communicate()


StartFake = Callable[..., Any]


@pytest.fixture
def start_fake(home: ServiceHome) -> StartFake:
    """Run a server on the fake engine over `home`: `with start_fake(load_seconds=0) as process`."""

    def start(load_seconds: float = 0.0, **variables: str) -> Any:
        command = [sys.executable, str(FAKE_SERVER), str(home.root), str(load_seconds)]
        return started(command, home.root / "ready.json", 30, **variables)

    return start


@dataclass(frozen=True, slots=True)
class Live:
    """The real server and its folder."""

    process: Process
    home: ServiceHome
    revisions: dict[str, str]


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, make_bundle: Any) -> Iterator[Live]:
    """`eul serve` on a tiny model: two names, three tenants, and a second revision of `poems` without an alias."""
    root = tmp_path_factory.mktemp("live")

    def make(*requests: str, seed: int, base: str) -> Any:
        return make_bundle(root / f"bundle-{seed}", tiny_model, seed=seed, requests=requests, scale=0.5)

    home = ServiceHome(root, make, "")
    revisions = {
        "poems": home.publish("poems", "stable", "r1", seed=1),
        "novels": home.publish("novels", "stable", "r2", seed=2),
        "second": home.publish("poems", None, "r1", "r3", seed=3),
    }
    home.write_policy(
        acme={"default": "poems:stable", "bundles": ["poems"], "rights": ["logprobs"]},
        zeta={"default": "novels:stable", "bundles": ["novels"]},
        root={"default": "base", "base": True, "bundles": ["poems", "novels"]},
    )
    command = [sys.executable, "-c", MAIN, "serve", "--model", str(tiny_model), "--policy", str(home.policy)]
    command += ["--registry", str(root / "registry"), "--cache", str(root / "cache"), "--poll-seconds", "0.1"]
    command += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--kv-cache-gib", "0.1"]
    command += ["--openai-listen", "127.0.0.1:0"]
    command += ["--ready-file", str(root / "ready.json"), "--slots", "2", "--capacity", "4", "--json"]
    with started(command, root / "ready.json", 280) as process:
        yield Live(process, home, revisions)
