"""Whether the evaluator tells apart: a model untouched, its retrained twin, the bounded default, and ascent too long.

    python tests/benchmarks/evidence/bench_verdicts.py --data ../shared/data/tofu --work work [--model base]

SmolLM2 is taught ten TOFU authors and its twin nine of them, as in `bench_twin.py`; that benchmark's --work may be
given, and its steps are not run again. Then a layer is trained by the default, to the loss of authors never taught, and
one by gradient ascent, far too long, and all four are measured by one line of `eul-train eval` and the built-in policy.
Prints JSON and writes verdicts.json. About half an hour on two cores, ten minutes after `bench_twin.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share

import bench_twin
import click
from common.ledger import Ledger
from common.machine import describe_machine
from common.output import command_line, rounded, write_json
from common.steps import Steps

OUT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "evidence" / "verdicts.json"
SHOWN = ("loss", "rouge_l", "gibberish", "unchanged", "truth_ratio")
EXPECTED = {
    "untouched": "fails: still known",
    "twin": "no rule about what is forgotten fails",
    "bounded": "passes",
    "ascent": "fails: forgotten too far",
}
"""What each system's verdict must be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps and write the record."""
    chosen = _options(arguments)
    words = ["--data", chosen.data, "--work", chosen.work, "--out", chosen.work / "twin.json"]
    words += ["--model", chosen.model] if chosen.model else []
    bench_twin.main([*map(str, words), *chosen.twin])
    steps = Steps(Ledger(chosen.work / "verdicts.jsonl", {"ascent_steps": chosen.ascent_steps}))
    data, taught = chosen.work / "data", chosen.work / "taught"
    ascent = chosen.work / "layer-ascent"
    steps.run("ascent", ["fit", "--model", taught, "--forget", data / "forget.jsonl", "--retain", data / "retain.jsonl",
                         "--objective", "ascent", "--steps", chosen.ascent_steps, "--target-low", 90,
                         "--target-high", 91, "--scale", 1, "--unrelated-limit", 0, "--request", "layer-ascent",
                         "--out", ascent])  # fmt: skip
    told = steps.run("eval", ["eval", "--model", taught, "--bundle", chosen.work / "layer-unseen", "--bundle", ascent,
                              "--twin", chosen.work / "twin", "--forget", data / "forget.jsonl",
                              "--retain", data / "test.jsonl", "--unseen", data / "unseen.jsonl",
                              "--out", chosen.work / "verdicts"])["told"]  # fmt: skip
    names = {"untouched": "base", "twin": "twin", "bounded": "layer-unseen", "ascent": "layer-ascent"}
    systems = {role: _system(told, name) for role, name in names.items()}
    record = {
        "command": command_line(
            "bench_verdicts.py", sys.argv[1:] if arguments is None else arguments, folder="evidence"
        ),
        "machine": describe_machine(),
        "systems": systems,
        "expected": EXPECTED,
        "told_apart": {role: _as_expected(role, found) for role, found in systems.items()},
        "seconds": steps.seconds(),
    }
    write_json(chosen.out, record)
    click.echo(json.dumps(rounded(record), indent=1))
    return 0 if all(record["told_apart"].values()) else 1


def _system(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what the evaluation says of one system, without any row."""
    verdict = {**told["verdicts"], **told["references"]}[name]
    means = {part["name"]: {key: part["systems"][name][key] for key in SHOWN} for part in told["sets"]}
    forgotten = told["comparisons"].get(name, {}).get("forget", {})
    return {
        "passed": verdict["passed"],
        "sentence": verdict["sentence"],
        "failed": {part["rule"]: part["side"] for part in verdict["findings"] if part["failed"]},
        "means": means,
        "membership_loss": forgotten.get("membership_loss"),
        "forget_quality": forgotten.get("forget_quality"),
        "twin_distance": (forgotten.get("twin_distance") or {}).get("mean"),
    }


def _as_expected(role: str, found: Mapping[str, Any]) -> bool:
    """Return whether a system's verdict is what EXPECTED says."""
    failed = found["failed"]
    if role == "untouched":
        return bool(failed.get("forgotten") == "below")
    if role == "ascent":
        return bool(failed.get("forgotten") == "above")
    return bool(found["passed"]) if role == "bounded" else "forgotten" not in failed and "no member" not in failed


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with TOFU's files")
    parser.add_argument("--work", type=Path, required=True, help="where models and measurements are kept")
    parser.add_argument("--model", type=Path, help="base model; made by `eul-train base` if not given")
    parser.add_argument("--ascent-steps", type=int, default=60, help="steps of the ascent")
    parser.add_argument("--out", type=Path, default=OUT, help="where the record goes")
    parser.add_argument(
        "--twin", nargs=argparse.REMAINDER, default=[], help="further options of bench_twin.py, at the end"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
