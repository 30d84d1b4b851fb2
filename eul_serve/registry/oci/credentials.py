"""Who we are at a registry: the file that `docker login` and `oras login` write, and the helpers that it names."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError

MAX_FILE = 1 << 20
"""Most bytes of the file."""
HELPER_SECONDS = 30
"""Longest time that a credential helper may take."""
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers return as the user of an identity token


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user at one registry; never shown."""

    user: str = ""
    """Name of the user."""
    password: str = field(default="", repr=False)
    """Their password."""
    identity: str = field(default="", repr=False)
    """An identity token that is exchanged instead of a password; empty where there is none."""

    @property
    def basic(self) -> str | None:
        """Value of the header Authorization, None where there is no user."""
        if not self.user:
            return None
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def config_file() -> Path:
    """Return where the credentials are kept: below $DOCKER_CONFIG, or in the home directory."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def find_credentials(host: str, file: Path | None = None) -> Credentials:
    """Return who we are at a host; nobody where the file says nothing of it.

    Args:
        host: Host and port.
        file: The file; None for the usual one.

    Returns:
        The credentials.

    Raises:
        InputError: The file is damaged, or a helper that it names fails.
    """
    path = file or config_file()
    config = _read(path)
    keys = (host, f"https://{host}", f"http://{host}")
    helpers = _object(config, "credHelpers", path)
    if helper := next((helpers[key] for key in keys if key in helpers), config.get("credsStore")):
        return _ask_helper(str(helper), host, path)
    known = _object(config, "auths", path)
    entries = [value for key, value in known.items() if key.rstrip("/") in keys or key.startswith(f"https://{host}/v")]
    return _parse(entries[0], host, path) if entries and isinstance(entries[0], dict) else Credentials()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
        config = json.loads(data) if len(data) <= MAX_FILE else None
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"credentials {str(path)!r}: {error.strerror}; check its owner and rights") from error
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"credentials {str(path)!r}: expected a JSON object; log in again to write it anew")
    return config


def _object(config: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = {} if config.get(key) is None else config[key]
    if not isinstance(value, dict):
        raise InputError(f"credentials {str(path)!r}: {key}: expected an object; log in again to write it anew")
    return value


def _parse(entry: Mapping[str, Any], host: str, path: Path) -> Credentials:
    try:
        user, _, password = base64.b64decode(entry.get("auth") or "", validate=True).decode().partition(":")
    except (ValueError, TypeError):
        # Without the error: it would quote the secret.
        raise InputError(f"credentials {str(path)!r}: {host}: damaged; log in there again") from None
    return Credentials(
        user=str(entry.get("username") or user),
        password=str(entry.get("password") or password),
        identity=str(entry.get("identitytoken") or ""),
    )


def _ask_helper(name: str, host: str, path: Path) -> Credentials:
    if not _HELPER.fullmatch(name):
        raise InputError(f"credentials {str(path)!r}: {name!r:.80} is no name of a credential helper")
    program = f"docker-credential-{name}"
    try:
        told = subprocess.run(
            [program, "get"], input=host, capture_output=True, text=True, timeout=HELPER_SECONDS, check=False
        )
        # A helper that knows nothing of a host says so and fails.
        found = json.loads(told.stdout) if told.returncode == 0 else {}
    except (OSError, subprocess.TimeoutExpired, ValueError):
        raise InputError(f"credentials {str(path)!r}: the helper {program} failed; does it run by itself?") from None
    user, secret = str(found.get("Username", "")), str(found.get("Secret", ""))
    return Credentials(identity=secret) if user == _TOKEN_USER else Credentials(user=user, password=secret)
