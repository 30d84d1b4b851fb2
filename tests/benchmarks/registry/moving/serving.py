"""The servers that both sides of a comparison speak to, started anew for each round with nothing in them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from eul_serve.errors import InputError

BUCKET = "bench"
START_SECONDS = 120
PORTS = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")
"""Of SeaweedFS; each has one more for gRPC."""


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    """Run docker-registry, which `.ci/registries` brings, and yield its host and port."""
    try:
        from tests.eul_serve.registry.stores.oci_place import running_registry
    except ModuleNotFoundError as error:
        raise InputError(f"store 'oci': this source tree has no such store ({error.name})") from error
    folder.mkdir(parents=True)
    with running_registry(folder) as host:
        yield host


@contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """Run SeaweedFS with one bucket in a folder, and yield its URL; the libraries find it by the environment."""
    folder.mkdir(parents=True)
    ports = _free_ports(2 * len(PORTS))
    named = dict(zip([*PORTS, *(f"{port}.grpc" for port in PORTS)], ports, strict=True))
    settings = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "bucket": BUCKET,
        "webdav": "false",
        "master.telemetry": "false",
        "admin.ui": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        **named,
    }
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{named['s3.port']}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench-secret",  # of a server that lives for seconds on loopback
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    line = [
        str(Path(sys.executable).parent / "weed"),
        "mini",
        *(f"-{name}={value}" for name, value in settings.items()),
    ]
    log = folder / "log"
    with mock.patch.dict(os.environ, environment), log.open("wb") as written:
        process = subprocess.Popen(line, stdout=written, stderr=written)
        try:
            _wait_for_bucket(process, log)
            yield f"s3://{BUCKET}"
        finally:
            process.kill()
            process.wait(10)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for_bucket(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an object could be written: ports answer before the parts have found each other."""
    import s3fs

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            system = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
            system.pipe_file(f"{BUCKET}/started", b"x")
            return
        except OSError:
            time.sleep(0.2)
    raise InputError(f"store 's3': SeaweedFS does not start: {log.read_text()[-500:]}")
