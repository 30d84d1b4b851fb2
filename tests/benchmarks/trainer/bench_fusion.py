"""Fuse 2, 5, 10 and 30 requests by every method: seconds, forgetting lost, and change of held-out retained rows.

    eul-train data tofu --from ../shared/data/tofu --authors 50 --requests 30 --out data
    eul-train teach --model base --data data/teach.jsonl --out taught
    python tests/benchmarks/trainer/bench_fusion.py --model taught --data data --work work

Each request's layer is trained once a seed and kept in --work; every measurement is written there at once, so that a
killed run goes on when the same line is run again. Two processes may train layers side by side: give one
`--part 0/2`, the other `--part 1/2`; then run without --part. Prints the table as JSON, and writes fusion.json,
fusion.md, fusion.svg and fusion.png.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch
from common.ledger import Ledger
from common.machine import describe_machine
from common.output import command_line, rounded, write_json
from fusing.inputs import Inputs, read_inputs
from fusing.layers import own_layer
from fusing.meter import Functions, Meter
from fusing.methods import METHODS, REFERENCES, SEQUENCE
from fusing.picture import draw
from fusing.references import in_sequence, on_union
from fusing.table import judge, markdown, over_seeds

from eul_trainer.fusion.fuse import merged
from eul_trainer.fusion.members import Member, collect
from eul_trainer.model import load_model
from eul_trainer.settings import FitSettings, override

OUT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "trainer"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the taught model")
    parser.add_argument("--data", type=Path, required=True, help="what eul-train data tofu --requests K wrote")
    parser.add_argument("--also-retain", type=Path, help="further rows that layers are trained and fused against")
    parser.add_argument("--work", type=Path, required=True, help="where layers and measurements are kept")
    parser.add_argument("--out", type=Path, default=OUT, help="where the table and the picture go")
    parser.add_argument("--requests", type=int, nargs="+", default=[2, 5, 10, 30])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[*METHODS, *REFERENCES], choices=[*METHODS, *REFERENCES])
    parser.add_argument("--held-rows", type=int, default=60, help="most held-out rows of a group")
    parser.add_argument("--fit", action="append", default=[], metavar="NAME=VALUE", help="a setting of the training")
    parser.add_argument("--part", default="", metavar="I/N", help="train every N-th layer alone, from the I-th")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


def fit_settings(given: Sequence[str]) -> FitSettings:
    """Return the settings of every training: all moments are stored, for the methods that read them."""
    chosen: dict[str, Any] = {"statistics": "full"}
    for item in given:
        name, _, value = item.partition("=")
        try:
            chosen[name] = json.loads(value)
        except ValueError:
            chosen[name] = value
    return override(FitSettings(), chosen)


class Bench:
    """The rows, the settings and what was measured so far."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.inputs: Inputs = read_inputs(chosen.data, chosen.held_rows, chosen.also_retain)
        self.settings = fit_settings(chosen.fit)
        self.meter = Meter(load_model(chosen.model, chosen.device), self.inputs)
        base = self.meter.model.base.fingerprint
        identity = {"base": base, "data": self.inputs.digest, "fit": asdict(self.settings)}
        self.ledger = Ledger(chosen.work / "fusion.jsonl", identity)

    def train(self) -> None:
        """Train every layer that is due, or this part of them."""
        first, _, step = (self.chosen.part or "0/1").partition("/")
        due = [(seed, name) for seed in self.chosen.seeds for name in self.names(seed, max(self.chosen.requests))]
        for seed, name in due[int(first) :: int(step)]:
            self.layer(seed, name)

    def names(self, seed: int, count: int) -> list[str]:
        return self.inputs.chosen(seed, count)

    def layer(self, seed: int, name: str) -> Any:
        folder = self.folder(seed)
        rows = self.inputs.requests[name]
        return own_layer(folder, self.chosen.model, name, rows, self.inputs.retain, replace(self.settings, seed=seed))

    def folder(self, seed: int) -> Path:
        folder: Path = self.chosen.work / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def before(self) -> dict[str, list[float]]:
        if ("held",) not in self.ledger:
            self.ledger.add(("held",), self.meter.held_losses({}))
        return self.ledger[("held",)]

    def own(self, seed: int, names: Sequence[str]) -> dict[str, float]:
        """Return each request's loss under its own layer."""
        for name in names:
            if ("own", seed, name) not in self.ledger:
                (member,) = collect([self.layer(seed, name)])
                losses = self.meter.forget_losses(_functions(member.layers), [name])
                self.ledger.add(("own", seed, name), losses)
        return {name: self.ledger["own", seed, name][name] for name in names}

    def measure(self, seed: int, count: int, method: str) -> dict[str, Any]:
        """Return one measurement, taken at the first call."""
        key = ("fused", seed, count, method)
        if key in self.ledger:
            return self.ledger[key]
        names, before = self.names(seed, count), self.before()
        own = self.own(seed, names)
        layers, seconds, facts = self.fused(seed, names, method)
        found = judge(
            own, self.meter.forget_losses(_functions(layers), names), before, self.meter.held_losses(_functions(layers))
        )
        rank = max(len(layer.down) for layer in layers.values())
        return self.ledger.add(key, {**found, "seconds": seconds, "rank": rank, "facts": facts})

    def fused(self, seed: int, names: Sequence[str], method: str) -> tuple[Any, float, dict[str, Any]]:
        """Return a fused layer, the seconds it took, and what the method says of itself."""
        if method in REFERENCES:
            make = in_sequence if method == SEQUENCE else on_union
            settings = replace(self.settings, seed=seed)
            return *make(self.folder(seed), self.chosen.model, self.inputs, names, settings), {}
        members: list[Member] = collect([self.layer(seed, name) for name in names])
        chosen = METHODS[method]
        rows = self.inputs.retain if chosen.retain else ()
        started = time.perf_counter()
        result = merged(members, chosen.make(self.settings.rank), self.meter.model, rows)
        return result.layers, time.perf_counter() - started, dict(result.facts)


def _functions(layers: Any) -> Functions:
    return {path: layer.apply for path, layer in layers.items()}


def run(chosen: argparse.Namespace, command: str) -> dict[str, Any]:
    """Train, fuse and measure whatever is not on disk yet, and return the whole record."""
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    bench = Bench(chosen)
    bench.train()
    if chosen.part:
        return {"trained": chosen.part}
    cells: dict[str, dict[str, Any]] = {}
    for method in chosen.methods:
        for count in sorted(chosen.requests):
            found = [bench.measure(seed, count, method) for seed in chosen.seeds]
            cell = cells.setdefault(method, {})[str(count)] = over_seeds(found)
            gap, change = cell["forget_gap_nats_max"], cell["retain_change_nats"]
            click.echo(f"{count} by {method}: gap {gap:+.2f}, retain {change:+.3f}", err=True)
    return {
        "what": "fusion of N requests: forgetting lost against each request's own layer, and held-out retain change",
        "command": command,
        "machine": describe_machine(),
        "requests": chosen.requests,
        "seeds": chosen.seeds,
        "rows_per_request": max(len(rows) for rows in bench.inputs.requests.values()),
        "retain_rows": len(bench.inputs.retain),
        "held_rows": {name: len(rows) for name, rows in bench.inputs.held.items()},
        "fit": asdict(bench.settings),
        "own_layers": _own(bench),
        "methods": cells,
    }


def _own(bench: Bench) -> dict[str, float]:
    losses = [value for key, row in bench.ledger.found.items() if key[0] == "own" for value in row.values()]
    return {"least_nats": min(losses), "mean_nats": sum(losses) / len(losses), "most_nats": max(losses)}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    record = run(chosen, command_line("bench_fusion.py", sys.argv[1:] if arguments is None else arguments))
    if "methods" in record:
        write_json(chosen.out / "fusion.json", record)
        (chosen.out / "fusion.md").write_text(markdown(record["methods"]), encoding="utf-8")
        draw(record["methods"], chosen.out)
    click.echo(json.dumps(rounded(record), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
