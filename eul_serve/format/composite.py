"""A composite: a bundle with a tenant's fine-tune beside it, as one revision that is named by the digests of both.

A fine-tune can bring back what was forgotten, so the two together are never taken for the bundle alone: a composite has
a manifest and a revision of its own, and says what was measured of it. It is a bundle in all else: it covers the same
requests, and a reader that knows nothing of fine-tunes applies the unlearning layers alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eul_serve.errors import BundleFormatError, InputError, RefusedError
from eul_serve.format.config import check_keys
from eul_serve.format.digest import digest_bytes
from eul_serve.format.files import read_large, read_listed
from eul_serve.format.listing import FileEntry
from eul_serve.format.lora import LORA_CONFIG_FILE, LORA_FILES, LORA_WEIGHTS_FILE, LoraConfig, check_lora
from eul_serve.format.manifest import Manifest
from eul_serve.format.names import check_digest

KEY = "composite"
"""Under which a manifest's settings name the two parts, and its metrics say what was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """What a composite's manifest says of its parts."""

    bundle: str
    """Revision of the bundle."""
    fine_tune: str
    """Digest of the fine-tune's files."""
    passed: bool
    """Whether its evaluation found that the fine-tune does not bring back what the bundle makes the model forget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """The two files of a fine-tune, checked."""

    config: bytes
    """`lora_config.json`."""
    weights: bytes
    """`lora_model.safetensors`."""


def composite_of(manifest: Manifest) -> Composite | None:
    """Return the parts of a composite; None for a bundle without a fine-tune.

    Args:
        manifest: Its manifest.

    Returns:
        Its parts, as the manifest names them.

    Raises:
        BundleFormatError: It lists a fine-tune's files and names no parts, or names others than it lists.
    """
    settings = manifest.settings.get(KEY)
    listed = [name for name in LORA_FILES if name in manifest.files]
    if settings is None and not listed:
        return None
    if not isinstance(settings, dict) or len(listed) != len(LORA_FILES):
        raise BundleFormatError(
            f"manifest.json: a composite has {' and '.join(LORA_FILES)} and settings.{KEY}; found "
            f"{', '.join([*listed, *([] if settings is None else ['settings'])])} alone"
        )
    check_keys(settings, {"bundle": str, "fine_tune": str}, f"manifest.json: settings.{KEY}")
    try:
        bundle = check_digest(settings["bundle"])
    except InputError as error:
        raise BundleFormatError(f"manifest.json: settings.{KEY}: bundle: {error}") from error
    if manifest.parents != (bundle,):
        raise BundleFormatError(f"manifest.json: parents: expected the composite's bundle alone, {bundle}")
    if settings["fine_tune"] != (digest := fine_tune_digest(manifest.files)):
        raise BundleFormatError(
            f"manifest.json: settings.{KEY}: fine_tune: expected the digest of its listed files, {digest}, found "
            f"{settings['fine_tune']!r:.100}"
        )
    return Composite(bundle=bundle, fine_tune=digest, passed=_passed(manifest.metrics))


def fine_tune_digest(files: Mapping[str, FileEntry]) -> str:
    """Return the digest that names a fine-tune: that of the digests of its files."""
    return digest_bytes(json.dumps({name: files[name].sha256 for name in LORA_FILES}, sort_keys=True).encode())


def check_passed(manifest: Manifest) -> Composite | None:
    """Refuse a composite that was not evaluated, or did not pass; a bundle without a fine-tune is not looked at.

    Args:
        manifest: Its manifest.

    Returns:
        The composite; None for a bundle without a fine-tune.

    Raises:
        BundleFormatError: The manifest contradicts itself.
        RefusedError: The composite has not passed.
    """
    found = composite_of(manifest)
    if found is not None and not found.passed:
        raise RefusedError(
            f"bundle {manifest.revision}: a composite that has not passed its evaluation: the fine-tune may bring back "
            "what the bundle makes the model forget; make it with eul-train compose, which measures that"
        )
    return found


def read_fine_tune(path: Path, manifest: Manifest) -> FineTune:
    """Read a composite's fine-tune with every check: what was checked is what is returned.

    Args:
        path: Directory of the composite.
        manifest: Its manifest, which lists the files.

    Returns:
        The bytes of the two files.

    Raises:
        BundleFormatError: A file is missing, a link, differs from its entry, or breaks the format.
    """
    config = read_listed(path, LORA_CONFIG_FILE, manifest.files[LORA_CONFIG_FILE])
    parsed = LoraConfig.from_bytes(config)
    try:
        weights = read_large(path, LORA_WEIGHTS_FILE, manifest.files[LORA_WEIGHTS_FILE])
    except InputError as error:
        raise BundleFormatError(str(error)) from error
    check_lora(parsed, weights)
    return FineTune(config=config, weights=weights)


def _passed(metrics: Mapping[str, Any]) -> bool:
    found = metrics.get(KEY)
    return isinstance(found, dict) and found.get("passed") is True
