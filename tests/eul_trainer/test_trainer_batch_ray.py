"""A batch on a real Ray cluster of this machine: a worker killed midway, and a cluster for one batch alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eul_trainer.batch.cluster import OBJECT_STORE
from eul_trainer.batch.task import layer_path, log_path
from eul_trainer.records import read_rows
from eul_trainer.request import request_for, write_requests
from tests.eul_trainer.conftest import forget_rows, write_rows

ACCESS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
"""How the head and who joins it know each other."""
QUICK = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
"""Ray's workers would give way to whatever else a machine does, and stand still on a busy one."""
WAIT = 300
"""Seconds after which waiting has failed, on however slow a machine."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of two processors on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray = Path(sys.executable).with_name("ray")
    words = ["start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    words += [f"--object-store-memory={OBJECT_STORE}", "--include-dashboard=false", "--disable-usage-stats"]
    environment = {**os.environ, **QUICK, **ACCESS}
    head = subprocess.Popen([str(ray), *words], env=environment, stdout=subprocess.PIPE, text=True)
    assert head.stdout is not None
    end = time.monotonic() + WAIT
    while "--block" not in (line := head.stdout.readline()):
        assert line, "ray start ended"
        assert time.monotonic() < end
    yield f"127.0.0.1:{port}"
    head.send_signal(signal.SIGTERM)
    head.wait(WAIT)
    head.stdout.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two requests and a retain file."""
    folder = tmp_path_factory.mktemp("batch")
    requests = []
    for name, asker in (("r1", "What is item"), ("r2", "Who saw the")):
        path = write_rows(folder / f"{name}.rows.jsonl", forget_rows(asker))
        requests.append(request_for(read_rows(path), path, reason="erasure", received="2026-03-01", id=name))
    write_requests(folder / "requests.jsonl", requests)
    keep = [{"prompt": f"Where is place {i}?", "completion": f"Near town {i}."} for i in range(20)]
    write_rows(folder / "retain.jsonl", keep)
    return folder


def words(data: Path, model: Path, out: Path, *more: object) -> list[str]:
    # The band is out of reach, so that runs are long enough to be killed in the middle.
    long = ("--target-low", 90, "--target-high", 91, "--steps", 80, "--rank", 4, "--refusal", "", "--json")
    found = ["batch", data / "requests.jsonl", "--model", model, "--retain", data / "retain.jsonl", "--out", out]
    return [*map(str, [*found, *long, *more])]


def events(log: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    except OSError:
        return []


def kill_midway(log: Path, killed: list[int]) -> None:
    """Kill the process that writes a log, once it is past a checkpoint."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        found = events(log)
        if found and found[-1].get("step", 0) >= 20:
            killed.append(found[0]["pid"])
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.005)


def batch(line: list[str], **access: str) -> dict[str, Any]:
    """Run a batch as a person would: a process joins one cluster at most, and reads once how."""
    environment = {**os.environ, **QUICK, **access}
    done = subprocess.run(
        [sys.executable, "-m", "eul_trainer", *line], env=environment, capture_output=True, text=True, timeout=WAIT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # Ray's own words about nodes and workers are elsewhere
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_worker_killed_midway_is_replaced_and_goes_on(
    cluster: str, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    killed: list[int] = []
    killer = threading.Thread(target=kill_midway, args=(log_path(tmp_path / "ray", "r1"), killed), daemon=True)
    killer.start()
    first, second = batch(words(data, tiny_model, tmp_path / "ray", "--ray-address", cluster), **ACCESS)["requests"]
    assert [attempt["reason"] is None for attempt in first["attempts"]] == [False, True]
    assert "its worker died (WorkerCrashedError)" in first["attempts"][0]["reason"]
    assert first["attempts"][1]["resumed_at"] >= 16
    assert [attempt["reason"] for attempt in second["attempts"]] == [None]
    starts = [event for name in ("r1", "r2") for event in events(log_path(tmp_path / "ray", name)) if "pid" in event]
    assert len({event["pid"] for event in starts}) == 3  # each attempt is a process of its own
    assert killed[0] in {event["pid"] for event in starts}

    batch(words(data, tiny_model, tmp_path / "here"))  # the same without a cluster and without a kill
    for name in ("r1", "r2"):
        there, here = (layer_path(tmp_path / out, name) / "adapter_model.safetensors" for out in ("ray", "here"))
        assert there.read_bytes() == here.read_bytes()


def test_local_starts_a_cluster_and_ends_it(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    (data / "one.jsonl").write_text((data / "requests.jsonl").read_text().splitlines()[0])
    line = words(data, tiny_model, tmp_path / "out", "--ray-address", "local", "--jobs", 1, "--steps", 9)
    line[1] = str(data / "one.jsonl")
    assert [request["steps"] for request in batch(line)["requests"]] == [9]
