"""The peers of registries behind a server: `oras` for OCI, and s3fs for S3."""

from __future__ import annotations

from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import Bundle
from moving.mover import shell

SYNC = ['sync -- "$1"/* "$1"']
"""Has what was pulled on the disk, as ours has."""


class Oras:
    """Pushes and pulls an artifact in processes of its own; oras holds every blob against its digest."""

    def __init__(self, bundle: Bundle, host: str) -> None:
        self._bundle, self._reference = bundle, f"{host}/peer:v1"
        try:
            from tests.eul_serve.registry.stores.oci_place import program
        except ModuleNotFoundError as error:
            raise InputError(f"store 'oci': this source tree has no such store ({error.name})") from error
        self._program = program("oras")

    def publish(self) -> None:
        """Push all files of the bundle as one artifact."""
        lines = ['cd "$1"', '"$2" push --plain-http --no-tty "$3" *']
        shell(lines, self._bundle.path, self._program, self._reference)

    def pull(self, target: Path) -> None:
        """Pull them to a directory, and to the disk."""
        lines = ['"$2" pull --plain-http --no-tty --output "$1" "$3"', *SYNC]
        shell(lines, target, self._program, self._reference)


class S3fs:
    """Puts and gets file by file, in parts as s3fs likes, in this process; no digest is looked at."""

    def __init__(self, bundle: Bundle, url: str) -> None:
        self._bundle, self._url = bundle, f"{url}/peer"

    def publish(self) -> None:
        """Upload all files of the bundle."""
        import s3fs

        system = s3fs.S3FileSystem(skip_instance_cache=True)
        for path in sorted(self._bundle.path.iterdir()):
            system.put_file(str(path), f"{self._url}/{path.name}")

    def pull(self, target: Path) -> None:
        """Download them to a directory, and to the disk."""
        import s3fs

        system = s3fs.S3FileSystem(skip_instance_cache=True)
        target.mkdir()
        for path in sorted(self._bundle.path.iterdir()):
            system.get_file(f"{self._url}/{path.name}", str(target / path.name))
        shell(SYNC, target)
