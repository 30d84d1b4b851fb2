"""The engine's benchmarks run from their first line to their record, on the tiny model and few of everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "engine"


def run(name: str, model: Path, out: Path, *words: object) -> dict[str, Any]:
    """Run a benchmark and return the record that it wrote."""
    line = [sys.executable, str(FOLDER / f"bench_{name}.py"), "--model", str(model), "--out", str(out)]
    done = subprocess.run([*line, *map(str, words)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    record: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    assert json.dumps(record, indent=1) in done.stdout  # beside vLLM's messages
    for command in record.get("commands") or [record["command"]]:
        assert command.startswith(f"python tests/benchmarks/engine/bench_{name}.py --model ")
    assert str(out) not in json.dumps(record)
    return record


def test_many_stored_bundles(tiny_model: Path, tmp_path: Path) -> None:
    few = ("--stored", 6, "--slots", 2, "--rank", 8, "--requests", 4, "--answer", 4, "--repeats", 2, "--blocks", 2)
    record = run("residency", tiny_model, tmp_path, *few, "--width", 64)
    assert record["tokens_per_second"].keys() == {"2", "6"}
    assert len(record["stored_vs_slots_rounds"]) == 2
    assert record["load"]["ms"].keys() == {"verify", "cast", "slot"}
    assert record["load_wide"]["width"] == 64
    assert all(value > 0 for value in record["first_token_ms"].values())
    assert record["first_token_ms"]["disk"] > record["first_token_ms"]["slot"]


def test_a_point_of_the_throughput_table(tiny_model: Path, tmp_path: Path) -> None:
    few = ("--ranks", 8, "--bundles", 2, "--requests", 4, "--answer", 4, "--prompts", 2, "--prompt", 32)
    few = (*few, "--repeats", 1, "--instances", 1, "--without-lora")
    record = run("throughput", tiny_model, tmp_path, *few)
    assert [(point["rank"], point["bundles"]) for point in record["points"]] == [(8, 2)]
    names = {"decode_vs_base", "prefill_vs_base"}
    assert all(point["ratios"].keys() == names for point in record["points"])
    # What is there is not measured again: no engine is started.
    assert run("throughput", tiny_model, tmp_path, *few)["points"] == record["points"]


def test_the_summary_copies_what_the_files_say(tmp_path: Path) -> None:
    point = {"choice": "even", "rank": 16, "bundles": 4, "ratios": {"decode_vs_base": 0.98, "prefill_vs_base": 0.99}}
    (tmp_path / "throughput.json").write_text(
        json.dumps({"points": [point], "machine": {"cores": 2}, "commands": ["c"]})
    )
    subprocess.run([sys.executable, str(FOLDER / "summary.py"), "--results", str(tmp_path)], check=True, timeout=60)
    found = json.loads((tmp_path / "summary.json").read_text())["cpu"]
    assert found["decode_vs_base"] == {"16": {"4": 0.98}}
    assert found["decode_vs_lora"] == {}
    assert found["stored_1000_vs_16"] is None
    assert found["machine"] == {"throughput": {"cores": 2}}
    assert (tmp_path / "throughput.svg").read_text().startswith("<?xml")


def test_the_committed_summary_is_that_of_the_committed_files(tmp_path: Path) -> None:
    results = FOLDER.parents[2] / "docs" / "benchmarks" / "engine"
    for path in results.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    subprocess.run([sys.executable, str(FOLDER / "summary.py"), "--results", str(tmp_path)], check=True, timeout=60)
    assert (tmp_path / "summary.json").read_text() == (results / "summary.json").read_text()
