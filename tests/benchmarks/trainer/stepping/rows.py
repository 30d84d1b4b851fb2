"""The rows that a step is measured on: the demo's short ones, and one TOFU author among five."""

from __future__ import annotations

from pathlib import Path

from eul_trainer.records import Fields, Row, read_rows

ROOT = Path(__file__).resolve().parents[4]
DEMO = ROOT / "trainer" / "eul_trainer" / "demo" / "data"
TOFU = ROOT.parent / "shared" / "data" / "tofu" / "full.json"
AUTHOR = 20
"""Rows of one TOFU author; the file has them in order."""
KEPT_AUTHORS = 4

Pair = tuple[list[Row], list[Row]]


def demo_rows() -> Pair:
    """Return the demo's rows to forget and to keep."""
    return read_rows(DEMO / "forget_einstein.train.jsonl", Fields()), read_rows(DEMO / "retain.train.jsonl", Fields())


def tofu_rows(path: Path) -> Pair:
    """Return the first author's rows, and those of the next authors to keep."""
    rows = read_rows(path, Fields(prompt="question", completion="answer"))
    return rows[:AUTHOR], rows[AUTHOR : AUTHOR * (1 + KEPT_AUTHORS)]
