"""From the URL a person gives to a registry."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from eul_serve.errors import InputError
from eul_serve.registry.local import LocalRegistry
from eul_serve.registry.stored import StoredRegistry

OCI_SCHEMES = ("oci", "oci+http")
OBJECT_SCHEMES = ("s3", "gs", "gcs", "abfs", "az", "memory")
ALLOWED = "a directory, file:///DIRECTORY, s3://BUCKET/PREFIX, gs:// or abfs:// likewise, or oci://HOST/PATH"


def open_registry(url: str) -> StoredRegistry:
    """Return the registry at a URL. Touches nothing: a registry comes into being with its first bundle.

    Args:
        url: A path, `file://` and an absolute path, or the URL of a bucket or of an OCI registry.

    Returns:
        The registry.

    Raises:
        InputError: Another scheme, no path, or a package that the scheme needs is not there.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        return _in_directory(url, url)
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise InputError(f"registry {url!r}: expected {ALLOWED}, with three slashes")
        return _in_directory(url, unquote(parts.path))
    if scheme in OCI_SCHEMES:
        from eul_serve.registry.oci import OciStore

        return StoredRegistry(OciStore(url))
    if scheme in OBJECT_SCHEMES:
        from eul_serve.registry.object_store import ObjectStore

        return StoredRegistry(ObjectStore(url))
    raise InputError(f"registry {url!r}: unknown scheme {scheme!r}; expected {ALLOWED}")


def _in_directory(url: str, path: str) -> LocalRegistry:
    if not path or "\x00" in path:
        raise InputError(f"registry {url!r}: expected {ALLOWED}")
    return LocalRegistry(Path(path))
