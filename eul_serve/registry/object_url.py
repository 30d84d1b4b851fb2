"""From a URL to the objects below it: which file systems are safe, and how each is opened."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from eul_serve.errors import InputError
from eul_serve.registry.fsspec_objects import FsspecObjects
from eul_serve.registry.object_errors import object_errors
from eul_serve.registry.objects import Objects
from eul_serve.registry.s3_objects import S3Objects

S3 = ("s3", "s3a")
SCHEMES = {
    "s3": "eul-serve[s3]",
    "s3a": "eul-serve[s3]",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "memory": "eul-serve[s3]",
}
"""File systems whose `pipe_file(mode="create")` the service itself makes exclusive, and what pip must install for each.

fsspec's own fallback, which all others have, looks first and then overwrites: two publishers could both win.
"""
READ_SECONDS = 60
"""How long a store may take to say something; s3fs's own 15 are short for a part on a slow line."""
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AZURE_PLACE = re.compile(r"[A-Za-z0-9-]+@[A-Za-z0-9.-]+")
_FOLDERS = re.compile(r"(/[A-Za-z0-9_=+][A-Za-z0-9._=+-]*)*")


def open_objects(url: str) -> Objects:
    """Return the objects below a URL. Asks nothing of the store.

    Args:
        url: `s3://BUCKET/PREFIX` or another of `SCHEMES`.

    Returns:
        The objects.

    Raises:
        InputError: The URL is not acceptable or a package is missing.
    """
    scheme = _check(url)
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme in S3:
        options["config_kwargs"] = {"read_timeout": READ_SECONDS}
    try:
        from fsspec.core import url_to_fs

        with object_errors(url):
            system, root = url_to_fs(url, **options)
    except ImportError as error:
        raise InputError(f"registry {url!r}: a package is missing: pip install '{SCHEMES[scheme]}'") from error
    if scheme in S3:
        bucket, _, prefix = root.partition("/")
        return S3Objects(system, bucket, prefix)
    return FsspecObjects(system, root, url)


def _check(url: str) -> str:
    """Return the scheme of an acceptable URL; no message repeats what may be a credential."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise InputError(
            f"registry at {scheme[:20]!r}: this file system cannot refuse to overwrite, so publishers could lose each "
            f"other's acts; expected one of {', '.join(f'{name}://' for name in SCHEMES)}"
        )
    if "?" in rest or "#" in rest or "::" in rest:
        raise InputError(f"registry at {scheme}://: expected BUCKET/PREFIX without '?', '#' and '::'")
    place, path = urlsplit(url).netloc, urlsplit(url).path.rstrip("/")
    azure = SCHEMES[scheme] == "adlfs" and _AZURE_PLACE.fullmatch(place)
    if "@" in place and not azure:
        raise InputError(
            f"registry at {scheme}://: the URL holds credentials; give them in the environment (AWS_PROFILE, "
            "AWS_ACCESS_KEY_ID and the like) and name only BUCKET/PREFIX"
        )
    if not azure and not _PLACE.fullmatch(place):
        raise InputError(f"registry {url!r}: expected the name of a bucket after {scheme}://")
    if not _FOLDERS.fullmatch(path):
        raise InputError(f"registry {url!r}: expected a prefix of plain names, such as {scheme}://BUCKET/eul/registry")
    return scheme
