"""Bundles of earlier requests that a layer is trained on top of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import Bundle, read_bundle


def read_below(paths: Sequence[Path], fingerprint: str) -> tuple[Bundle, ...]:
    """Read the bundles, each checked against the base model.

    Args:
        paths: Their directories.
        fingerprint: Of the base model.

    Returns:
        The bundles.

    Raises:
        InputError: One is given twice, or was itself trained on top of layers that are not among those given.
    """
    bundles = tuple(read_bundle(path, fingerprint) for path in paths)
    given = trained_layers(bundles)
    if len(set(given)) < len(given):
        raise InputError("--on-top-of: a layer is in two of the bundles, and would act twice; give each once")
    for bundle in bundles:
        missing = sorted(set(bundle.manifest.settings.get("on_top_of", [])) - set(given))
        if missing:
            raise InputError(
                f"--on-top-of {str(bundle.path)!r}: trained on top of {missing[0]}, which is not among the bundles "
                "given; fuse the two and give that bundle, or give both"
            )
    return bundles


def trained_layers(bundles: Sequence[Bundle]) -> tuple[str, ...]:
    """Return the revisions of the trained layers in bundles: a fused bundle's parents, and a layer's own."""
    return tuple(name for bundle in bundles for name in bundle.manifest.parents or (bundle.revision,))
