"""The file in which `docker login` and `oras login` keep credentials; only the entry of one host is ever touched."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.config import parse_object
from eul_serve.registry.disk import disk_errors
from eul_serve.whole import replace_whole

FILE = "config.json"
MAX_BYTES = 4 << 20
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?")
_DOCKER_HUB = "https://index.docker.io/v1/"
"""What every tool calls Docker Hub in this file."""


def config_path() -> Path:
    """Return where the file is: in DOCKER_CONFIG, or `.docker` of the home directory."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / FILE


def check_host(host: str) -> str:
    """Return the name under which the file has a host.

    Args:
        host: The host, with its port where that is not the usual one.

    Returns:
        Its name.

    Raises:
        InputError: It is no host.
    """
    if not _HOST.fullmatch(host):
        raise InputError(
            f"host {host!r:.200}: expected the host of an OCI registry alone, such as registry.example.com or "
            "localhost:5000; leave out the scheme and the path"
        )
    return _DOCKER_HUB if host in ("docker.io", "index.docker.io") else host


def store_login(path: Path, host: str, username: str, password: str) -> None:
    """Put the credentials of one host into the file, for its owner's eyes; all else in it stays.

    Args:
        path: The file, made where there is none.
        host: What `check_host` returned.
        username: The user.
        password: The password or token.

    Raises:
        InputError: The file cannot be read or written, or says that a program keeps the credentials.
    """
    if not username or ":" in username or not password:
        raise InputError(f"user {username!r:.100}: expected a name without a colon, and a password that is not empty")
    with disk_errors(f"file {str(path)!r}"):
        path = path.resolve()  # people keep the file elsewhere and link to it
        content = _read(path)
        _check_no_helper(path, content, host)
        entries = content.setdefault("auths", {})
        if not isinstance(entries, dict):
            raise InputError(f"file {str(path)!r}: auths: expected an object; mend the file or move it away")
        entries[host] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_whole(path, json.dumps(content, indent="\t") + "\n", mode=0o600)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    try:
        # An empty file is what some tools leave, and means the same as none.
        return parse_object(data, FILE) if data.strip() else {}
    except BundleFormatError as error:
        raise InputError(f"file {str(path)!r}: {error}; mend the file or move it away") from error


def _check_no_helper(path: Path, content: dict[str, Any], host: str) -> None:
    """Refuse to write where other tools would not look."""
    helpers = content.get("credHelpers")
    helper = (helpers.get(host) if isinstance(helpers, dict) else None) or content.get("credsStore")
    if helper:
        raise InputError(
            f"file {str(path)!r}: says that the program docker-credential-{helper} keeps the credentials of {host}; "
            "use `docker login` or `oras login`, which call it"
        )
