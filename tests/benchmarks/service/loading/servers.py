"""A benchmark's servers, each in a process of its own: `eul serve`, ours on a fake engine, gRPC alone, and vLLM's."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import EngineError
from loading.counted import TASKS
from loading.processes import program, started
from tests.eul_serve.service_home import ServiceHome


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    """Its process."""
    listen: str
    """Where it answers requests."""
    metrics: str = ""
    """Where its metrics are; empty where it has none."""
    admin: str = ""
    """Where its administrators ask; empty where they cannot."""
    tasks: Path
    """File that it writes the number of its tasks to, after SIGUSR1."""

    @property
    def pid(self) -> int:
        """Id of its process."""
        return self.process.pid

    def scrape(self) -> str:
        """Return the text of its metrics."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=30) as response:
            found: bytes = response.read()
        return found.decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a real engine is started with."""

    model: Path
    """Directory of the base model."""
    slots: int = 4
    """Bundles in one batch."""
    capacity: int = 16
    """Bundles in host memory."""
    rank: int = 8
    """Highest rank of a bundle."""
    batch: int = 64
    """Requests in flight."""
    kv_cache_gib: float = 0.25
    """Memory of the key-value cache."""
    dtype: str = "float32"
    """dtype of weights and activations."""
    context: int = 512
    """Longest prompt and answer together, in tokens."""


@contextmanager
def eul_server(home: ServiceHome, shape: Shape, poll_seconds: float, cache: str = "cache") -> Iterator[Server]:
    """Run `eul serve` over a folder until the context ends.

    Args:
        home: The folder, with its registry and policy.
        shape: The engine.
        poll_seconds: Between two looks at registry and policy.
        cache: Name of the folder of verified bundles.

    Yields:
        The server.
    """
    options = {
        "model": shape.model, "registry": home.root / "registry", "policy": home.policy, "cache": home.root / cache,
        "poll-seconds": poll_seconds, "listen": "127.0.0.1:0", "metrics-listen": "127.0.0.1:0",
        "admin-listen": "127.0.0.1:0", "ready-file": home.root / "ready.json", "slots": shape.slots,
        "capacity": shape.capacity, "max-rank": shape.rank, "max-batch": shape.batch, "max-context": shape.context,
        "kv-cache-gib": shape.kv_cache_gib, "dtype": shape.dtype,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with _ready(home.root, program("counted_server", "serve", *words)) as server:
        yield server


@contextmanager
def paced_server(home: ServiceHome, poll_seconds: float, step: float, cache: str = "cache") -> Iterator[Server]:
    """Run our server on the fake engine over a folder until the context ends; `step` is its seconds for a token."""
    with _ready(home.root, program("paced_server", home.root, cache, poll_seconds, step)) as server:
        yield server


@contextmanager
def bare_server(root: Path) -> Iterator[Server]:
    """Run a server of gRPC alone, which answers as the fake engine does, until the context ends."""
    with _ready(root, program("bare_server", root)) as server:
        yield server


@contextmanager
def _ready(root: Path, command: Sequence[str]) -> Iterator[Server]:
    """Run a server that writes its addresses to `ready.json`, and that has to end by itself, with status 0."""
    ready, tasks = root / "ready.json", root / "tasks.json"
    ready.unlink(missing_ok=True)
    log = root / "server.log"
    with started(command, log, ready.exists, **{TASKS: str(tasks)}) as process:
        told = json.loads(ready.read_text())
        yield Server(
            process=process,
            listen=told["listen"],
            metrics=told.get("metrics", ""),
            admin=told.get("admin", ""),
            tasks=tasks,
        )
    if process.returncode:
        raise EngineError(f"a server ended with status {process.returncode}: {log.read_text(errors='replace')[-3000:]}")


@contextmanager
def openai_server(root: Path, shape: Shape, adapters: Mapping[str, Path]) -> Iterator[Server]:
    """Run vLLM's own server with bundles as adapters, loaded at its start, until the context ends.

    Its engine has what ours has: the same plugin, without the layers that plain LoRA adapters would need.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", shape.model,
        "--served-model-name", "base", "--dtype", shape.dtype, "--max-model-len", shape.context, "--max-num-seqs",
        shape.batch, "--enforce-eager",
        "--enable-lora", "--max-lora-rank", shape.rank, "--max-loras", shape.slots, "--max-cpu-loras", shape.capacity,
        "--additional-config", json.dumps({"eul": {"plain_lora": False, "fine_tunes": False}}),
        "--shutdown-timeout", 20, "--disable-uvicorn-access-log", "--host", "127.0.0.1", "--port", port,
        "--lora-modules", *(f"{name}={path}" for name, path in adapters.items()),
    ]  # fmt: skip
    environment = {
        "EUL_PLUGIN": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(shape.kv_cache_gib))),
    }  # fmt: skip
    listen = f"127.0.0.1:{port}"
    with started(list(map(str, command)), root / "openai.log", lambda: _healthy(listen), **environment) as process:
        yield Server(process=process, listen=listen, tasks=root / "none.json")


def _healthy(listen: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{listen}/health", timeout=5):
            return True
    except OSError:
        return False
