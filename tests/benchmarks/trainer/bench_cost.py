"""What honouring one request costs against retraining, at 0.5 %, 1 % and 10 % of TOFU's 4,000 rows.

    python tests/benchmarks/trainer/bench_cost.py --data ../shared/data/tofu --work work

Measured: `eul-train teach` on the rows of the largest request, and one `eul-train fit` for each share, with all other
rows of TOFU as what is retained (whole commands, load of the model included). Extrapolated: retraining, which is the
measured seconds of teaching per token times the tokens of all retained rows times the same number of epochs (its
training alone, without load). Prints JSON and writes cost.json. Each step is run once and kept in --work.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from common.ledger import Ledger
from common.machine import describe_machine
from common.output import command_line, rounded, write_json
from common.steps import Steps

from eul_trainer.forward.encoding import encode
from eul_trainer.records import Fields, Row, read_rows

OUT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "trainer" / "cost.json"
UNSEEN = 20
"""Rows never taught whose loss is the target of the stop."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps and write the record."""
    chosen = _options(arguments)
    given = {name: getattr(chosen, name) for name in ("shares", "limit", "epochs", "band", "fit")}
    steps = Steps(Ledger(chosen.work / "steps.jsonl", given))
    rows = read_rows(chosen.data / "full.json", Fields(prompt="question", completion="answer"))
    rows = rows[-chosen.limit :] if chosen.limit else rows
    # The last rows are forgotten, as in TOFU's own splits, so that the model taught the largest request knows them all.
    counts = {f"{100 * share:g} %": max(1, round(share * len(rows))) for share in sorted(chosen.shares)}
    base, taught = chosen.model or chosen.work / "base", chosen.work / "taught"
    if chosen.model is None:
        steps.run("base", ["base", "--out", base])
    known = _write(chosen.work / "teach.jsonl", rows[-max(counts.values()) :])
    steps.run("teach", ["teach", "--model", base, "--data", known, "--out", taught, "--epochs", chosen.epochs])
    unseen = _write(chosen.work / "unseen.jsonl", rows[:UNSEEN])
    told = steps.run("unseen", ["baseline", "measure", taught, "--rows", unseen])["told"]["systems"]
    goal = told[str(taught)][str(unseen)]["loss"]
    rate = _rate(taught)
    shares = {}
    for share, count in counts.items():
        fitted = _fit(steps, chosen, taught, rows, count, goal)
        shares[share] = _compare(rows, count, fitted, base, rate, chosen.epochs)
    record = {
        "command": command_line("bench_cost.py", sys.argv[1:] if arguments is None else arguments),
        "machine": describe_machine(),
        "retrain_cost_ratio": {share: found["ratio"] for share, found in shares.items()},
        "shares": shares,
        "target_nats": goal,
        "measured_teaching": rate,
        "extrapolated": "retrain_seconds = seconds_per_token of measured_teaching * retain_tokens * epochs",
        "settings": given,
    }
    write_json(chosen.out, record)
    click.echo(json.dumps(rounded(record), indent=1))
    return 0


def _write(path: Path, rows: Sequence[Row]) -> Path:
    lines = [json.dumps({"prompt": row.prompt, "completion": row.completion}) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _rate(taught: Path) -> dict[str, Any]:
    """Return what teaching cost, from its own record."""
    record = json.loads((taught / "teach.json").read_text(encoding="utf-8"))
    epochs = record["settings"]["epochs"]
    return {
        "rows": record["rows"],
        "epochs": epochs,
        "tokens": record["tokens"],
        "seconds": record["seconds"],
        "dtype": record["dtype"],
        "loss_last_epoch": record["loss_by_epoch"][-1],
        "rows_per_second": record["rows"] * epochs / record["seconds"],
        "milliseconds_per_token": 1000 * record["seconds"] / (record["tokens"] * epochs),
    }


def _fit(
    steps: Steps, chosen: argparse.Namespace, taught: Path, rows: Sequence[Row], count: int, goal: float
) -> dict[str, Any]:
    folder = chosen.work / f"forget-{count}"
    forget, retain = _write(folder / "forget.jsonl", rows[-count:]), _write(folder / "retain.jsonl", rows[:-count])
    return steps.run(f"fit-{count}", ["fit", "--model", taught, "--forget", forget, "--retain", retain,
                                      "--out", folder / "layer", "--request", f"forget-{count}",
                                      "--target-low", max(0.05, goal - chosen.band),
                                      "--target-high", goal + chosen.band, *chosen.fit])  # fmt: skip


def _compare(
    rows: Sequence[Row], count: int, fitted: dict[str, Any], base: Path, rate: dict[str, Any], epochs: int
) -> dict[str, Any]:
    tokens = _tokens(base, rows[:-count])
    retrain = rate["milliseconds_per_token"] / 1000 * tokens * epochs
    return {
        "forget_rows": count,
        "retain_rows": len(rows) - count,
        "retain_tokens": tokens,
        "retrain_seconds": retrain,
        "fit_seconds": fitted["seconds"],
        "fit_steps": fitted["told"]["steps"],
        "forget_before": fitted["told"]["forget_before"],
        "forget_after": fitted["told"]["forget_after"],
        "target_reached": fitted["told"]["reached"],
        "ratio": retrain / fitted["seconds"],
    }


def _tokens(base: Path, rows: Sequence[Row]) -> int:
    """Return the tokens of one pass, as `teach.json` counts them."""
    from transformers import AutoTokenizer

    examples = encode(AutoTokenizer.from_pretrained(base), rows, limit=1 << 30, end_token=True)
    return sum(example.length for example in examples)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with TOFU's files")
    parser.add_argument("--work", type=Path, required=True, help="where models and measurements are kept")
    parser.add_argument("--model", type=Path, help="base model; made by `eul-train base` if not given")
    parser.add_argument("--out", type=Path, default=OUT, help="where the record goes")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.005, 0.01, 0.1])
    parser.add_argument("--limit", type=int, default=0, help="use the last rows alone, to try the way")
    parser.add_argument("--epochs", type=int, default=7, help="passes of teaching, and of the retraining it stands for")
    parser.add_argument("--band", type=float, default=0.25, help="half of the width of the target band, nats")
    parser.add_argument("--fit", nargs=argparse.REMAINDER, default=[], help="further options of fit, at the end")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
