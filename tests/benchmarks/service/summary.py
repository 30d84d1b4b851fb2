"""Gather the committed results of the service's benchmarks into summary.json.

    python tests/benchmarks/service/summary.py [--results docs/benchmarks/service]

Copies numbers out of the single files, computes none. What has not been measured yet is null.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share

from common.output import read_json, write_json

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "service"
FILES = ("grpc", "swaps", "front_end", "soak", "bypass")
SWAPS = ("count", "failed", "wrong_revision", "itl_p99_ratio", "seconds_p50", "seconds_p99")
VS_BARE = ("requests_vs_bare", "tokens_vs_bare", "processor_per_request_vs_bare", "bytes_per_stream_vs_bare")
OURS = ("requests_per_second", "tokens_per_second", "bytes_per_stream")
SOAK = ("minutes", "asked", "failed", "swaps", "flat", "leaked")
BYPASS = ("attempts", "through")


def gather(folder: Path) -> dict[str, Any]:
    """Return the summary of what is in a folder of results."""
    found = {name: read_json(folder / f"{name}.json") for name in FILES}
    return {
        "grpc_vs_in_process": found["grpc"].get("grpc_vs_in_process"),
        "grpc_vs_openai_http": found["grpc"].get("grpc_vs_openai_http"),
        "swaps": _some(found["swaps"], SWAPS),
        "front_end": _front_end(found["front_end"]),
        "soak": _some(found["soak"], SOAK),
        "bypass": _some(found["bypass"], BYPASS),
        "machine": {name: record["machine"] for name, record in found.items() if record},
        "command": {name: record["command"] for name, record in found.items() if record},
    }


def _front_end(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return what our server does with so many streams open, and its ratios to the bare one."""
    streams = record.get("streams", {}).items()
    return {count: {**_of(one["ours"], OURS), **_of(one, (*VS_BARE, "failed"))} for count, one in streams} or None


def _some(record: dict[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    """Return some numbers of a record; None where there is no record."""
    return _of(record, names) if record else None


def _of(record: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: record.get(name) for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args(arguments).results
    write_json(folder / "summary.json", gather(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
