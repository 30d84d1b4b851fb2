"""A bundle directory: read with every check, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import BundleFormatError, BundleMismatchError, CapacityError, InputError
from eul_serve.format.config import BundleConfig
from eul_serve.format.digest import digest_bytes, digest_file, open_regular
from eul_serve.format.header import read_header
from eul_serve.format.manifest import FileEntry, Manifest
from eul_serve.format.tensors import check_finite, check_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
STATISTICS_FILE = "fusion.safetensors"
PUBLISHED_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
MAX_TEXT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A checked bundle; its weights are still on disk."""

    path: Path
    """The directory."""
    config: BundleConfig
    """The parsed `adapter_config.json`."""
    manifest: Manifest
    """The parsed `manifest.json`."""
    widths: dict[str, int]
    """Width d of every wrapped module, by its path in the base model."""

    @property
    def revision(self) -> str:
        """Digest of the manifest."""
        return self.manifest.revision

    @property
    def weights(self) -> Path:
        """Path of the weights."""
        return self.path / WEIGHTS_FILE


def read_bundle(path: Path, base_fingerprint: str | None = None) -> Bundle:
    """Read and check a bundle directory: files, digests, header, names, shapes, dtypes, finite values.

    Args:
        path: The directory.
        base_fingerprint: Fingerprint that the bundle must have been made for; None accepts any.

    Returns:
        The checked bundle.

    Raises:
        InputError: The directory or one of its files is missing or a link.
        BundleFormatError: A file breaks the format or its digest.
        BundleMismatchError: The bundle was made for another base model.
    """
    if not path.is_dir():
        raise InputError(f"bundle {str(path)!r}: expected a directory with {MANIFEST_FILE}")
    manifest = Manifest.from_bytes(read_text(path / MANIFEST_FILE))
    check_files(path, manifest)
    config = BundleConfig.from_bytes(read_text(path / CONFIG_FILE))
    _check_agreement(manifest, config)
    header = read_header(path / WEIGHTS_FILE)
    widths = check_tensors(header, config)
    check_finite(path / WEIGHTS_FILE, header)
    if base_fingerprint is not None and config.base_fingerprint != base_fingerprint:
        raise BundleMismatchError(
            f"bundle {manifest.revision}: made for base model {config.base_fingerprint}, but this model is "
            f"{base_fingerprint}; use the model that the bundle was trained on, or train again"
        )
    return Bundle(path=path, config=config, manifest=manifest, widths=widths)


def check_files(path: Path, manifest: Manifest) -> None:
    """Hash every file that a manifest lists, and artifacts where they are present.

    Raises:
        BundleFormatError: A file is missing, a link, or differs from its digest.
    """
    for name in PUBLISHED_FILES:
        if name not in manifest.files:
            raise BundleFormatError(f"manifest.json: files: missing {name!r}")
    present = {name: entry for name, entry in manifest.artifacts.items() if (path / name).exists()}
    for name, entry in {**manifest.files, **present}.items():
        try:
            found = digest_file(path / name)
        except InputError as error:
            raise BundleFormatError(str(error)) from error
        if found != entry.sha256:
            raise BundleFormatError(f"file {name!r}: expected {entry.sha256}, found {found}; the file was changed")


def _check_agreement(manifest: Manifest, config: BundleConfig) -> None:
    if manifest.base.fingerprint != config.base_fingerprint:
        raise BundleFormatError(
            f"base fingerprint: manifest.json says {manifest.base.fingerprint}, adapter_config.json {config.base_fingerprint}"
        )
    for request in manifest.requests:
        if request.units is not None and request.units[1] > config.rank:
            raise BundleFormatError(
                f"request {request.id!r}: units: expected an end of at most r={config.rank}, found {request.units[1]}"
            )


def read_text(path: Path) -> bytes:
    """Read a small file of a bundle, at most 16 MiB, without following links.

    Raises:
        InputError: The file is missing, a link, or not regular.
        BundleFormatError: The file is too large.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise BundleFormatError(f"file {path.name!r}: expected at most {MAX_TEXT_BYTES} bytes")
    return data


def describe_files(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Return the manifest's entries for files that are still in memory."""
    return {name: FileEntry(sha256=digest_bytes(data), size=len(data)) for name, data in files.items()}


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle directory whole or not at all, and read it back with every check.

    Args:
        path: The directory to make; it must not exist, or be empty.
        manifest: The manifest, whose digests cover `files`.
        files: Contents by file name, artifacts and further files (`run.json`) included.

    Returns:
        The bundle as read back.

    Raises:
        InputError: The directory exists and is not empty.
        CapacityError: The disk is full, or the files cannot be written.
        BundleFormatError: The contents are not a valid bundle.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"output {str(path)!r}: expected a new or empty directory; name another one or remove it")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        for name, data in {**files, MANIFEST_FILE: manifest.to_bytes()}.items():
            with open(part / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        read_bundle(part)
        os.replace(part, path)
    except OSError as error:
        raise CapacityError(f"output {str(path)!r}: cannot write: {error.strerror}; free space or name another") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return read_bundle(path)
