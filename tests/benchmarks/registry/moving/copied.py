"""The peer of a registry in a directory: `cp` on the same file system, `sync`, and a look at every digest."""

from __future__ import annotations

from pathlib import Path

from eul_serve.format import Bundle
from moving.mover import shell

SUMS = {
    "sha256sum": 'sha256sum --check --strict --quiet "$1.sums"',
    # As fast as our own hashing: coreutils' sha256sum does not use the processor's instructions for SHA.
    "openssl": 'openssl dgst -sha256 -r -- * | cmp - "$1.openssl"',
}
"""Lines that hold every file of the directory `$2` against its digest."""


class Copied:
    """Copies, then reads what it copied again for the digests."""

    def __init__(self, bundle: Bundle, root: Path, sums: str) -> None:
        self._bundle, self._stored, self._line = bundle, root / "stored", SUMS[sums]
        self._sums = root / "bundle"
        root.mkdir(parents=True)
        files = sorted(path.name for path in bundle.path.iterdir())
        shell(
            ['cd "$2"', 'sha256sum -- * > "$1.sums"', 'sed "s/  / */" "$1.sums" > "$1.openssl"'],
            self._sums,
            bundle.path,
        )
        assert len(self._sums.with_suffix(".sums").read_text().splitlines()) == len(files)

    def publish(self) -> None:
        """Copy the bundle to its place."""
        self._copy(self._bundle.path, self._stored)

    def pull(self, target: Path) -> None:
        """Copy it back."""
        self._copy(self._stored, target)

    def _copy(self, source: Path, target: Path) -> None:
        lines = ['mkdir "$3"', 'cp -- "$2"/* "$3"', 'sync -- "$3"/* "$3"', 'cd "$3"', self._line]
        shell(lines, self._sums, source, target)
