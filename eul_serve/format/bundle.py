"""A bundle directory, read with every check."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError
from eul_serve.format.config import BundleConfig
from eul_serve.format.digest import digest_bytes, digest_open, reading
from eul_serve.format.header import parse_header
from eul_serve.format.listing import FileEntry
from eul_serve.format.manifest import Manifest
from eul_serve.format.tensors import check_finite, check_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
STATISTICS_FILE = "fusion.safetensors"
PUBLISHED_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
MAX_TEXT_BYTES = 4 << 20


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


def read_bundle(path: Path, base_fingerprint: str | None = None, *, weights: bool = True) -> Bundle:
    """Read and check a bundle directory: files, digests, header, names, shapes, dtypes, finite values.

    Each file is opened once, without following links, and what was hashed is what is parsed.

    Args:
        path: The directory.
        base_fingerprint: Fingerprint that the bundle must have been made for; None accepts any.
        weights: Whether to hash the weights and look at every value; False where `load_layers` comes next, which does
            both on the very bytes that it returns.

    Returns:
        The checked bundle.

    Raises:
        InputError: The directory or its manifest is missing or a link, or cannot be read.
        BundleFormatError: A file breaks the format or its digest.
        BundleMismatchError: The bundle was made for another base model.
    """
    if not os.path.isdir(path):
        raise InputError(f"bundle {str(path)!r}: expected a directory with {MANIFEST_FILE}")
    manifest = Manifest.from_bytes(read_text(path / MANIFEST_FILE))
    check_listing(manifest)
    config = BundleConfig.from_bytes(_read_listed(path, CONFIG_FILE, manifest.files[CONFIG_FILE]))
    check_agreement(manifest, config)
    # A bundle for another model is refused before its weights are read: they may be large.
    if base_fingerprint is not None and config.base_fingerprint != base_fingerprint:
        raise BundleMismatchError(
            f"bundle {manifest.revision}: made for base model {config.base_fingerprint}, but this model is "
            f"{base_fingerprint}; use the model that the bundle was trained on, or train again"
        )
    widths = _read_weights(path, manifest.files[WEIGHTS_FILE], config, values=weights)
    check_files(path, manifest, skip=(CONFIG_FILE, WEIGHTS_FILE))
    return Bundle(path=path, config=config, manifest=manifest, widths=widths)


def check_listing(manifest: Manifest) -> None:
    """Check that a manifest lists the files that every bundle has.

    Args:
        manifest: The manifest.

    Raises:
        BundleFormatError: Names the first that is missing.
    """
    for name in PUBLISHED_FILES:
        if name not in manifest.files:
            raise BundleFormatError(f"manifest.json: files: missing {name!r}")


def check_files(path: Path, manifest: Manifest, skip: tuple[str, ...] = ()) -> None:
    """Check size and digest of every file that a manifest lists, and of artifacts where they are present.

    Args:
        path: The directory.
        manifest: The manifest.
        skip: Names of files that were checked already.

    Raises:
        BundleFormatError: A file is missing, a link, or differs from its digest.
    """
    present = {name: entry for name, entry in manifest.artifacts.items() if os.path.lexists(path / name)}
    for name, entry in {**manifest.files, **present}.items():
        if name in skip:
            continue
        try:
            with reading(path / name) as file:
                size = os.fstat(file.fileno()).st_size
                _check_entry(name, entry, size, None)
                _check_entry(name, entry, size, digest_open(file))
        except InputError as error:
            raise BundleFormatError(str(error)) from error


def check_agreement(manifest: Manifest, config: BundleConfig) -> None:
    """Check that the manifest and the config say the same.

    Args:
        manifest: The manifest.
        config: The config.

    Raises:
        BundleFormatError: The base model differs, or a request has units beyond the rank.
    """
    if manifest.base.fingerprint != config.base_fingerprint:
        raise BundleFormatError(
            f"base fingerprint: manifest.json says {manifest.base.fingerprint}, "
            f"adapter_config.json says {config.base_fingerprint}"
        )
    for request in manifest.requests:
        if request.units is not None and request.units[1] > config.rank:
            raise BundleFormatError(
                f"request {request.id!r}: units: expected an end of at most r={config.rank}, found {request.units[1]}"
            )


def _read_listed(path: Path, name: str, entry: FileEntry) -> bytes:
    try:
        data = read_text(path / name)
    except InputError as error:
        raise BundleFormatError(str(error)) from error
    _check_entry(name, entry, len(data), digest_bytes(data))
    return data


def _read_weights(path: Path, entry: FileEntry, config: BundleConfig, *, values: bool) -> dict[str, int]:
    try:
        with reading(path / WEIGHTS_FILE) as file:
            size = os.fstat(file.fileno()).st_size
            _check_entry(WEIGHTS_FILE, entry, size, None)
            header = parse_header(file, WEIGHTS_FILE)
            widths = check_tensors(header, config)
            if values:
                _check_entry(WEIGHTS_FILE, entry, size, digest_open(file))
                check_finite(file, header)
    except InputError as error:
        raise BundleFormatError(str(error)) from error
    return widths


def _check_entry(name: str, entry: FileEntry, size: int, digest: str | None) -> None:
    if size != entry.size:
        raise BundleFormatError(f"file {name!r}: expected {entry.size} bytes, found {size}; the file was changed")
    if digest is not None and digest != entry.sha256:
        raise BundleFormatError(f"file {name!r}: expected {entry.sha256}, found {digest}; the file was changed")


def read_text(path: Path) -> bytes:
    """Read a small file of a bundle, at most 4 MiB, without following links.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        InputError: The file is missing, a link, or not regular.
        BundleFormatError: The file is too large.
    """
    with reading(path) as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise BundleFormatError(f"file {path.name!r}: expected at most {MAX_TEXT_BYTES} bytes")
    return data
