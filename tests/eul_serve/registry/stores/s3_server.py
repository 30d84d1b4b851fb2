"""A real S3 service for the tests: SeaweedFS, one program from PyPI, on loopback and in memory.

It was chosen because it has what the store needs of S3: conditional writes, unfinished uploads in listings, checked
ETags, and errors with S3's own codes. It reports statistics to its makers unless told not to; it is told.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from unittest import mock

BUCKET = "registries"
START_SECONDS = 60
KEYS = {"publisher": "publishers-secret", "reader": "readers-secret"}
# Ends the server with the process that holds the pipe, however that one ends.
KEEPER = 'dir=$1; shift; "$@" >"$dir/log" 2>&1 & cat >/dev/null; kill $! 2>/dev/null; wait; rm -rf "$dir"'


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server with one bucket."""

    endpoint: str
    """URL of the server."""

    def environment(self, user: str = "publisher") -> dict[str, str]:
        """Return what the AWS libraries read; only s3fs repeats, which is the shorter wait."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": KEYS[user],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@functools.cache
def s3_server() -> S3Server:
    """Start the server, once for a test process."""
    shared = Path("/dev/shm")
    folder = Path(mkdtemp(prefix="eul-s3-", dir=shared if os.access(shared, os.W_OK) else None))
    ports = _free_ports(8)
    command = [str(Path(sys.executable).parent / "weed"), *_options(folder, ports)]
    keeper = subprocess.Popen(["sh", "-c", KEEPER, "keeper", str(folder), *command], stdin=subprocess.PIPE)
    atexit.register(_stop, keeper)
    server = S3Server(endpoint=f"http://127.0.0.1:{ports[0]}")
    _wait_for(server, folder / "log")
    return server


@contextmanager
def s3_environment(user: str = "publisher", **changes: str) -> Iterator[S3Server]:
    """Give this process the server's endpoint and credentials.

    Args:
        user: Whose.
        changes: More variables, or other values.

    Yields:
        The server.
    """
    server = s3_server()
    with mock.patch.dict(os.environ, server.environment(user) | changes):
        os.environ.pop("AWS_PROFILE", None)
        yield server


def fresh_url() -> str:
    """Return the URL of an empty place in the bucket."""
    return f"s3://{BUCKET}/{secrets.token_hex(8)}/registry"


def _options(folder: Path, ports: list[int]) -> list[str]:
    s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = ports
    users = [
        {
            "name": user,
            "credentials": [{"accessKey": user, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List"] if user == "publisher" else ["Read", "List"],
        }
        for user, secret in KEYS.items()
    ]
    (folder / "users.json").write_text(json.dumps({"identities": users}))
    options = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "filer": "true",
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "master.port": master,
        "master.port.grpc": master_grpc,
        "master.telemetry": "false",
        "master.volumePreallocate": "false",
        "master.volumeSizeLimitMB": 1000,
        "s3": "true",
        "s3.autoCreateBucket": "false",
        "s3.config": folder / "users.json",
        "s3.iam": "false",
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "volume.max": 20,
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
    }
    return ["server", *(f"-{name}={value}" for name, value in options.items())]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(server: S3Server, log: Path) -> None:
    """Wait until the bucket could be made: ports answer before the parts have found each other."""
    import s3fs

    with mock.patch.dict(os.environ, server.environment()):
        system = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(server.endpoint, timeout=5)
            except urllib.error.HTTPError:
                try:
                    system.call_s3("create_bucket", Bucket=BUCKET)
                    system.call_s3("put_object", Bucket=BUCKET, Key="started", Body=b"x")
                    return
                except OSError as error:
                    last: Exception = error
            except OSError as error:
                last = error
            assert time.monotonic() < deadline, f"SeaweedFS does not start: {last}\n{log.read_text()[-2000:]}"
            time.sleep(0.1)


def _stop(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin is not None
    keeper.stdin.close()
    keeper.wait()
