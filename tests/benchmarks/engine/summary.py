"""Gather the committed results of the engine's benchmarks: summary.json, and a picture of the throughput table.

    python tests/benchmarks/engine/summary.py [--results docs/benchmarks/engine]

Copies numbers out of the single files, computes none. What has not been measured yet is null or empty.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share

from common.output import read_json, write_json
from measuring.picture import draw

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "engine"
FILES = ("throughput", "residency", "start", "bfloat16")
RATIOS = ("decode_vs_base", "prefill_vs_base", "decode_vs_lora", "prefill_vs_lora")


def gather(folder: Path) -> dict[str, Any]:
    """Return the summary of what is in a folder of results: everything by device, of which one was measured so far."""
    found = {name: read_json(folder / f"{name}.json") for name in FILES}
    residency, start, points = found["residency"], found["start"], found["throughput"].get("points", [])
    cpu = {
        **{ratio: _by_rank(points, ratio) for ratio in RATIOS},
        "zipf": {ratio: _by_rank(points, ratio, "zipf") for ratio in RATIOS},
        "stored_1000_vs_16": residency.get("stored_vs_slots"),
        "first_token_ms": residency.get("first_token_ms", {}),
        "load_ms": residency.get("load", {}).get("ms", {}),
        "load_wide_ms": residency.get("load_wide", {}).get("ms", {}),
        "start_vs_adapters_off": start.get("start", {}).get("vs_adapters_off"),
        "memory_vs_weights": {rank: one["vs_weights"] for rank, one in start.get("memory_per_bundle", {}).items()},
        "bfloat16_bundle_minus_base_points": found["bfloat16"].get("bundle_minus_base_points"),
        "machine": {name: record["machine"] for name, record in found.items() if record},
        "command": {name: record.get("command", record.get("commands")) for name, record in found.items() if record},
    }
    return {"cpu": cpu}


def _by_rank(points: Sequence[dict[str, Any]], ratio: str, choice: str = "even") -> dict[str, dict[str, float]]:
    """Return a ratio by rank, and in that by the number of bundles in increasing order."""
    points = sorted(points, key=lambda point: (point["rank"], point["bundles"]))
    found: dict[str, dict[str, float]] = {}
    for point in points:
        if point["choice"] == choice and ratio in point["ratios"]:
            found.setdefault(str(point["rank"]), {})[str(point["bundles"])] = point["ratios"][ratio]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args(arguments).results
    summary = gather(folder)
    write_json(folder / "summary.json", summary)
    if summary["cpu"]["decode_vs_base"]:
        draw(summary["cpu"], folder / "throughput.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
