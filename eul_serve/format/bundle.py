"""A bundle directory, read with every check."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError
from eul_serve.format.canaries import CANARIES_FILE, Canary, read_canaries
from eul_serve.format.composite import composite_of, read_fine_tune
from eul_serve.format.config import BundleConfig
from eul_serve.format.digest import digest_open, reading
from eul_serve.format.files import check_entry, check_files, read_listed, read_text
from eul_serve.format.header import parse_header
from eul_serve.format.listing import FileEntry
from eul_serve.format.lora import LORA_FILES
from eul_serve.format.manifest import Manifest
from eul_serve.format.tensors import check_finite, check_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
STATISTICS_FILE = "fusion.safetensors"
PUBLISHED_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)


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
    canaries: tuple[Canary, ...] = ()
    """What it must still hide whenever it is loaded; none where it has no `canaries.json`."""

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
        weights: Whether to hash the weights and look at every value; False where `load_layers` comes next (and
            `read_fine_tune` for a composite), which does both on the very bytes that it returns.

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
    config = BundleConfig.from_bytes(read_listed(path, CONFIG_FILE, manifest.files[CONFIG_FILE]))
    check_agreement(manifest, config)
    # A bundle for another model is refused before its weights are read: they may be large.
    if base_fingerprint is not None and config.base_fingerprint != base_fingerprint:
        raise BundleMismatchError(
            f"bundle {manifest.revision}: made for base model {config.base_fingerprint}, but this model is "
            f"{base_fingerprint}; use the model that the bundle was trained on, or train again"
        )
    canaries = read_canaries(path, manifest)
    widths = _read_weights(path, manifest.files[WEIGHTS_FILE], config, values=weights)
    checked = [CONFIG_FILE, WEIGHTS_FILE, CANARIES_FILE]
    if composite_of(manifest) is not None:
        if weights:
            read_fine_tune(path, manifest)
        checked += LORA_FILES
    check_files(path, manifest, skip=checked)
    return Bundle(path=path, config=config, manifest=manifest, widths=widths, canaries=canaries)


def check_listing(manifest: Manifest) -> None:
    """Check that a manifest lists the files that every bundle has.

    Args:
        manifest: The manifest.

    Raises:
        BundleFormatError: Names the first that is missing; a fine-tune is listed that the manifest does not explain; or
            canaries are an artifact, which no server would get.
    """
    for name in PUBLISHED_FILES:
        if name not in manifest.files:
            raise BundleFormatError(f"manifest.json: files: missing {name!r}")
    if CANARIES_FILE in manifest.artifacts:
        raise BundleFormatError(f"manifest.json: {CANARIES_FILE!r}: expected under files, found among the artifacts")
    composite_of(manifest)


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


def _read_weights(path: Path, entry: FileEntry, config: BundleConfig, *, values: bool) -> dict[str, int]:
    try:
        with reading(path / WEIGHTS_FILE) as file:
            size = os.fstat(file.fileno()).st_size
            check_entry(WEIGHTS_FILE, entry, size, None)
            header = parse_header(file, WEIGHTS_FILE)
            widths = check_tensors(header, config)
            if values:
                check_entry(WEIGHTS_FILE, entry, size, digest_open(file))
                check_finite(file, header)
    except InputError as error:
        raise BundleFormatError(str(error)) from error
    return widths
