"""Gather the committed results of the registry's benchmarks into summary.json.

    python tests/benchmarks/registry/summary.py [--results docs/benchmarks/registry]

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

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "registry"
MODEL_TEST = ("steps", "crashes", "lost")
COLD_START = ("bundles", "cold_seconds", "warm_seconds")
LISTING = ("revisions", "names_seconds", "list_seconds", "resolve_alias_seconds")
POLLING = ("bundles", "poll_seconds")


def gather(folder: Path) -> dict[str, Any]:
    """Return the summary of what is in a folder of results."""
    stores: dict[str, Any] = read_json(folder / "transfer.json").get("stores", {})
    model_test, start = (read_json(folder / f"{name}.json") for name in ("model_test", "cold_start"))
    measured = {**stores, "model_test": model_test, "cold_start": start}
    return {
        "publish_vs_peer": _vs(stores, "publish", 0),
        "pull_vs_peer": _vs(stores, "pull", 0),
        "publish_vs_second_peer": _vs(stores, "publish", 1),
        "pull_vs_second_peer": _vs(stores, "pull", 1),
        "peers": {store: record["peers"] for store, record in stores.items()} or None,
        "second_publish": {store: _of_sizes(record, "second_publish") for store, record in stores.items()} or None,
        "model_test": _some(model_test, MODEL_TEST),
        "cold_start": _some(start.get("cold_start", {}), COLD_START),
        "listing": _some(start.get("calls", {}), LISTING),
        "polling": _some(start.get("cold_start", {}), POLLING),
        "machine": {name: record["machine"] for name, record in measured.items() if record},
        "command": {name: record["command"] for name, record in measured.items() if record},
    }


def _vs(stores: dict[str, Any], act: str, number: int) -> dict[str, Any] | None:
    """Return our speed as a part of one peer's, by store and size, for the stores that have so many peers."""
    having = {store: record for store, record in stores.items() if number < len(record["peers"])}
    return {store: _of_sizes(one, f"{act}_vs_{one['peers'][number]}") for store, one in having.items()} or None


def _of_sizes(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {size: found[name] for size, found in record["sizes"].items()}


def _some(record: dict[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    """Return some numbers of a record; None where there is no record."""
    return {name: record.get(name) for name in names} if record else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args(arguments).results
    write_json(folder / "summary.json", gather(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
