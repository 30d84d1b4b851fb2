"""Writing a bundle: config, weights, card, statistics, manifest, and the unpublished record of the run."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_serve.format import (
    BaseModel,
    Bundle,
    BundleConfig,
    ForgottenRequest,
    Manifest,
    check_name,
    describe_files,
    write_bundle,
)
from eul_serve.format.bundle import CARD_FILE, CONFIG_FILE, STATISTICS_FILE, WEIGHTS_FILE
from eul_serve.format.weights import LayerWeights, dump_layers
from eul_trainer.output.card import render_card

RUN_FILE = "run.json"
PACKAGES = ("eul-serve", "torch", "transformers", "peft", "safetensors", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Everything that goes into a bundle directory."""

    config: BundleConfig
    """The layer's settings."""
    base: BaseModel
    """The base model."""
    requests: tuple[ForgottenRequest, ...]
    """The requests, in the order of their units."""
    layers: dict[str, LayerWeights]
    """The weights by module path."""
    statistics: bytes
    """Contents of `fusion.safetensors`."""
    settings: dict[str, Any]
    """Settings of the training or fusion, plain JSON."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Measured numbers, plain JSON."""
    parents: tuple[str, ...] = ()
    """Revisions of the fused layers."""
    run: dict[str, Any] = field(default_factory=dict)
    """What is recorded but never published: seconds, loss curve."""


def write_parcel(out: Path, parcel: Parcel) -> Bundle:
    """Write a bundle directory whole or not at all.

    Args:
        out: The directory; new or empty.
        parcel: Its contents.

    Returns:
        The bundle as read back with every check.
    """
    published = {
        CONFIG_FILE: parcel.config.to_bytes(),
        WEIGHTS_FILE: dump_layers(parcel.layers),
        CARD_FILE: render_card(parcel.config, parcel.base, parcel.requests, parcel.settings, parcel.metrics).encode(),
    }
    kept = {STATISTICS_FILE: parcel.statistics}
    manifest = Manifest(
        base=parcel.base,
        requests=parcel.requests,
        parents=parcel.parents,
        settings=parcel.settings,
        metrics=parcel.metrics,
        files=describe_files(published),
        artifacts=describe_files(kept),
    )
    run = {"settings": parcel.settings, "metrics": parcel.metrics, "versions": versions(), **parcel.run}
    record = json.dumps(run, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
    return write_bundle(out, manifest, {**published, **kept, RUN_FILE: record})


def versions() -> dict[str, str]:
    """Return the versions of the interpreter and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def request_id(given: str | None, out: Path) -> str:
    """Return the request's id: the one given, or the output directory's name.

    Args:
        given: The id from the command line, if any.
        out: The output directory.

    Returns:
        The id.

    Raises:
        InputError: Neither is an acceptable name.
    """
    if given is not None:
        return check_name(given, "request")
    try:
        return check_name(out.name.lower(), "request")
    except InputError as error:
        raise InputError(f"{error}; it comes from --out: name another with --request ID") from error
