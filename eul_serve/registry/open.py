"""From the URL a person gives to a registry."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from eul_serve.errors import InputError
from eul_serve.registry.base import Registry
from eul_serve.registry.local import LocalRegistry

ALLOWED = "a directory or file:///DIRECTORY"


def open_registry(url: str) -> Registry:
    """Return the registry at a URL. Touches nothing: a registry comes into being with its first bundle.

    Args:
        url: A path, or `file://` and an absolute path.

    Returns:
        The registry.

    Raises:
        InputError: Another scheme, or no path.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        path = url
    elif scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise InputError(f"registry {url!r}: expected {ALLOWED}, with three slashes")
        path = unquote(parts.path)
    else:
        raise InputError(f"registry {url!r}: unknown scheme {scheme!r}; expected {ALLOWED}")
    if not path or "\x00" in path:
        raise InputError(f"registry {url!r}: expected {ALLOWED}")
    return LocalRegistry(Path(path))
