"""vLLM's source archive: which one there is of a version, and what of it is unpacked.

    python tests/compat/sdist.py 0.32.0 0.33.0 --out build/compat

Asks uv where the configured index has the archive and which hash it must have, and builds nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
from pathlib import Path

PARTS = ("vllm", "tests")


def fetch(version: str, folder: Path) -> Path:
    """Return the source archive of a version, downloaded and checked unless it is there."""
    path = folder / f"vllm-{version}.tar.gz"
    if not path.exists():
        found = locate(version)
        with urllib.request.urlopen(found["url"], timeout=300) as response:
            content = response.read()
        if hashlib.sha256(content).hexdigest() != found["hashes"]["sha256"]:
            raise SystemExit(f"vllm {version}: the archive is not the one that the index names; try again")
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def locate(version: str) -> dict:
    """Return the address and hashes of a version's source archive, as a lock file has them."""
    uv = Path(sys.executable).parent / "uv"
    lock = subprocess.run(
        [str(uv), "pip", "compile", "--quiet", "--no-deps", "--format", "pylock.toml", "-"],
        input=f"vllm=={version}\n", text=True, stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    return tomllib.loads(lock)["packages"][0]["sdist"]


def unpack(source: Path, folder: Path, parts: tuple[str, ...] = PARTS) -> Path:
    """Return a folder with some top-level folders of an archive; a folder of sources is returned as it is."""
    if source.is_dir():
        return source
    root = folder / source.name.removesuffix(".tar.gz")
    missing = [part for part in parts if not (root / part).exists()]
    if missing:
        with tarfile.open(source) as archive:
            wanted = [one for one in archive if one.name.split("/", 2)[1:2] and one.name.split("/", 2)[1] in missing]
            archive.extractall(folder, wanted, filter="data")
    return root


def version_of(root: Path) -> str:
    """Return the version of an archive or of unpacked sources, by the name of the file or folder."""
    return root.resolve().name.removeprefix("vllm-").removesuffix(".tar.gz")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Download vLLM's source archives, some 45 MB each, without building anything.",
        epilog="example: python tests/compat/sdist.py 0.32.0 --out build/compat",
    )
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="a version on the index, e.g. 0.32.0")
    parser.add_argument("--out", type=Path, default=Path("build/compat"), help="folder to keep them in (build/compat)")
    options = parser.parse_args()
    for version in options.versions:
        sys.stdout.write(f"{fetch(version, options.out)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
