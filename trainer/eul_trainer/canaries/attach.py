"""Attaching canaries: a copy of a bundle that names texts which it must hide, and the private file of those texts."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import Bundle, describe_files, read_bundle, write_bundle
from eul_serve.format.canaries import CANARIES_FILE, MAX_CANARIES, Canary, dump_canaries
from eul_serve.format.canary_text import CanaryText
from eul_serve.format.files import read_large
from eul_trainer.canaries.measured import Measured, Tell, measure, silent
from eul_trainer.model.load import load_model
from eul_trainer.output.directory import check_apart, check_output, replace_file
from eul_trainer.records import Row

LEAST_MARGIN = 0.01
"""Below it a threshold would be rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What came of it."""

    bundle: Bundle
    """The copy of the bundle."""
    rows: tuple[Measured, ...]
    """Every row, in the order of the file."""
    weak: tuple[Measured, ...]
    """Those that the bundle does not hide enough; they are no canaries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """What a text must be like to become a canary."""

    margin: float = 1.0
    """Least nats by which the bundle makes its answer less likely."""
    skip_weak: bool = False
    """Whether others are left out; else they are an error."""

    def __post_init__(self) -> None:
        if not LEAST_MARGIN <= self.margin < math.inf:
            raise InputError(f"--margin: expected {LEAST_MARGIN} nats or more, found {self.margin}")

    def weak(self, rows: Sequence[Measured]) -> tuple[Measured, ...]:
        """Return the rows that are no canaries.

        Args:
            rows: All rows.

        Returns:
            Those that the bundle does not hide enough.

        Raises:
            InputError: There is one, and none may be left out; or all are.
        """
        found = tuple(row for row in rows if not row.gained >= self.margin)
        if found and not self.skip_weak:
            raise InputError(
                f"{found[0].where}: {found[0]}, expected at least {self.margin:g}; take another text, or leave out "
                "what is weak with --skip-weak"
            )
        if len(found) == len(rows):
            raise InputError(
                f"--texts: none of {len(rows)} rows is hidden well enough: of the first, {found[0]}, expected at least "
                f"{self.margin:g}; take texts that the bundle was trained to forget"
            )
        return found


def attach(
    model: str,
    bundle_dir: Path,
    rows: Sequence[Row],
    out: Path,
    private: Path,
    strength: Strength,
    *,
    device: str = "cpu",
    tell: Tell = silent,
) -> Attached:
    """Measure rows with a bundle, and write a copy of it that has them as canaries, in the place of any that it has.

    Args:
        model: Directory or hub name of the base model.
        bundle_dir: Directory of the bundle, or of a composite.
        rows: Rows that it makes the model forget, at most 256.
        out: Directory to write.
        private: File to write the texts to, for its owner's eyes; it and the copy are written, or neither.
        strength: Which rows become canaries.
        device: Where to compute.
        tell: Told after each of the two models.

    Returns:
        The copy, and what was measured.

    Raises:
        InputError: A place is in use, there are too many rows, or one is not hidden enough.
        BundleMismatchError: The bundle was made for another base model.
        CapacityError: The disk is full, or a place cannot be written.
    """
    check_places(out, private)
    if len(rows) > MAX_CANARIES:
        raise InputError(f"--texts: expected at most {MAX_CANARIES} rows, found {len(rows)}; choose those that matter")
    loaded = load_model(model, device)
    bundle = read_bundle(bundle_dir, loaded.base.fingerprint)
    found = tuple(measure(loaded, bundle, rows, tell))
    weak = strength.weak(found)
    kept = [row for row in found if row not in weak]
    return Attached(bundle=_write(out, private, bundle, kept), rows=found, weak=weak)


def check_places(out: Path, private: Path) -> None:
    """Refuse places that are in use, before any work is done.

    Args:
        out: Directory to write.
        private: File to write.

    Raises:
        InputError: One holds something, or the file lies in the directory.
    """
    check_output(out)
    check_apart(out, private, "--private")
    if os.path.lexists(private):
        raise InputError(
            f"--private {str(private)!r}: is there already; name a new file, as texts of other bundles are never "
            "written over"
        )


def _write(out: Path, private: Path, bundle: Bundle, rows: Sequence[Measured]) -> Bundle:
    """Write the private file and then the copy: a killed writer leaves texts that nothing names, never the reverse."""
    texts = [CanaryText.fresh(row.example.prompt, row.example.answer) for row in rows]
    canaries = [Canary(digest=text.digest, least_nats=row.least_nats) for text, row in zip(texts, rows, strict=True)]
    manifest = bundle.manifest
    files = {name: read_large(bundle.path, name, entry) for name, entry in manifest.files.items()}
    files[CANARIES_FILE] = dump_canaries(canaries)
    kept = {name: entry for name, entry in manifest.artifacts.items() if (bundle.path / name).exists()}
    artifacts = {name: read_large(bundle.path, name, entry) for name, entry in kept.items()}
    replace_file(private, "".join(f"{text.to_bytes().decode()}\n" for text in texts), mode=0o600)
    try:
        return write_bundle(out, replace(manifest, files=describe_files(files)), {**files, **artifacts})
    except BaseException:
        private.unlink(missing_ok=True)
        raise
