"""The benchmark itself: layers, references and methods, each measured once and written down at once."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from common.ledger import Ledger
from common.output import mean

from eul_serve.errors import InputError
from eul_serve.format import Bundle
from eul_trainer.fusion.fuse import merge, prepare
from eul_trainer.fusion.job import Fused
from eul_trainer.fusion.members import Member, collect
from eul_trainer.model.load import load_model
from eul_trainer.settings import FitSettings, override
from fusing.inputs import Inputs, read_inputs
from fusing.layers import own_layer
from fusing.meter import Functions, Meter
from fusing.methods import METHODS, REFERENCES, SEQUENCE, TRAINED, Method
from fusing.references import in_sequence, on_top, on_union
from fusing.remembered import Remembered
from fusing.table import judge


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
        model = load_model(chosen.model, chosen.device)
        model.network.to(getattr(torch, chosen.dtype))
        self.meter = Meter(model, self.inputs)
        facts = {"base": model.base.fingerprint, "data": self.inputs.digest, "dtype": chosen.dtype}
        identity = {**facts, "fit": asdict(self.settings)}
        self._members: dict[tuple[int, str], Member] = {}
        self.retained = Remembered(model=model, rows=self.inputs.retain)
        self.ledger = Ledger(chosen.work / "fusion.jsonl", identity)

    def train(self) -> None:
        """Train every layer that is due, or this part of them."""
        first, _, step = (self.chosen.part or "0/1").partition("/")
        pairs = [
            (seed, name)
            for count in sorted(self.chosen.requests)
            for seed in self.seeds(count)
            for name in self.names(seed, count)
        ]
        due = list(dict.fromkeys(pairs))
        for seed, name in due[int(first) :: int(step)]:
            self.layer(seed, name)

    def seeds(self, count: int, method: str = "") -> list[int]:
        """Return the seeds that a number of requests is measured with, by a method."""
        given: list[int] = self.chosen.seeds
        given = (self.chosen.seeds_largest or given) if count == max(self.chosen.requests) else given
        if method not in TRAINED:
            return given
        wanted = self.chosen.seeds_trained or given
        return [seed for seed in given if seed in wanted and count <= self.chosen.most_trained]

    def names(self, seed: int, count: int) -> list[str]:
        return self.inputs.chosen(seed, count)

    def layer(self, seed: int, name: str) -> Bundle:
        folder = self.folder(seed)
        rows = self.inputs.requests[name]
        return own_layer(folder, self.chosen.model, name, rows, self.inputs.retain, replace(self.settings, seed=seed))

    def member(self, seed: int, name: str) -> Member:
        """Return a request's layer with its moments, read and checked once as long as the seed is the same."""
        if (seed, name) not in self._members:
            self._members = {key: member for key, member in self._members.items() if key[0] == seed}
            (self._members[seed, name],) = collect([self.layer(seed, name)])
        return self._members[seed, name]

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
                losses = self.meter.forget_losses(_functions(self.member(seed, name).layers), [name])
                self.ledger.add(("own", seed, name), losses)
        return {name: self.ledger["own", seed, name][name] for name in names}

    def own_losses(self) -> dict[str, float]:
        """Return how far the requests' own layers forget: least, mean and most, nats."""
        losses = [value for key, row in self.ledger.found.items() if key[0] == "own" for value in row.values()]
        return {"least_nats": min(losses), "mean_nats": mean(losses), "most_nats": max(losses)}

    def measure(self, seed: int, count: int, method: str) -> dict[str, Any]:
        """Return one measurement, taken at the first call."""
        key = ("fused", seed, count, method)
        if key in self.ledger:
            return self.ledger[key]
        try:
            return self.ledger.add(key, self._measured(seed, self.names(seed, count), method))
        except InputError as error:  # a method that cannot fuse so many is a result, and ends no other
            return self.ledger.add(key, {"failed": str(error)})

    def _measured(self, seed: int, names: Sequence[str], method: str) -> dict[str, Any]:
        own, before = self.own(seed, names), self.before()
        layers, seconds, facts = self.fused(seed, names, method)
        functions = _functions(layers)
        found = judge(own, self.meter.forget_losses(functions, names), before, self.meter.held_losses(functions))
        return {**found, "seconds": seconds, "rank": _rank(layers), "facts": facts}

    def fused(self, seed: int, names: Sequence[str], method: str) -> tuple[Any, float, dict[str, Any]]:
        """Return a fused layer, the seconds it took, and what the method says of itself."""
        settings = replace(self.settings, seed=seed)
        if method in REFERENCES:
            make = in_sequence if method == SEQUENCE else on_union
            return *make(self.folder(seed), self.chosen.model, self.inputs, names, settings), {}
        chosen = METHODS[method]
        if chosen.on_top:
            members = collect(on_top(self.folder(seed), self.chosen.model, self.inputs, names, settings))
        else:
            members = sorted((self.member(seed, name) for name in names), key=lambda member: member.revision)
        result, seconds = self.merged(members, chosen)
        return result.layers, seconds, dict(result.facts)

    def merged(self, members: Sequence[Member], chosen: Method) -> tuple[Fused, float]:
        """Fuse by the product's own functions; the seconds hold the measuring of retained rows, done once for all."""
        retained, started = self.retained if chosen.retain else None, time.perf_counter()
        saved = retained.saved if retained else 0.0
        result = merge(prepare(members, chosen.make(self.settings.rank), retained))
        spent = time.perf_counter() - started
        return result, spent + (retained.saved - saved if retained else 0.0)


def _functions(layers: Any) -> Functions:
    return {path: layer.apply for path, layer in layers.items()}


def _rank(layers: Any) -> int:
    """Return the hidden units of a fused layer; a gated one holds the layer that it gates."""
    return max(len(getattr(layer, "layer", layer).down) for layer in layers.values())
