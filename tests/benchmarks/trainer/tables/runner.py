"""Teach, apply, measure, write down: every cell of a table, each at most once."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from common.ledger import Ledger
from common.output import mean
from fusing.inputs import spread_rows

from eul_serve.errors import EulError
from eul_serve.format import read_base
from eul_trainer.baselines.evaluated import Evaluated, WholeModel
from eul_trainer.model.load import load_model, resolve
from eul_trainer.teaching.directory import TEACH_FILE, training_record, write_model
from eul_trainer.teaching.run import teach
from tables.case import Case, make_case
from tables.measures import label_accuracy, losses, probability, recall, summary_scores, truth_ratio
from tables.methods import METHODS, Cell
from tables.scale import Scale

LABELS = ("positive", "negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table to be made."""

    task: str
    """tofu, imdb or samsum."""
    scale: Scale
    """Its size."""
    base: str
    """Directory of the model before teaching."""
    data: Path
    """Folder with the task's data."""
    work: Path
    """Where taught models and measurements are kept."""
    seeds: Sequence[int]
    """Seeds."""
    methods: Sequence[str]
    """Methods in the order of the table."""
    device: str = "cpu"
    """Where to compute."""

    def run(self) -> dict[str, list[dict[str, Any]]]:
        """Measure what is not on disk yet.

        Returns:
            Measurements of all seeds by "split / method".
        """
        scale = {"fit": self.scale.fit, "teach": self.scale.teach.to_json(), "splits": self.scale.splits}
        identity = {"task": self.task, "base": read_base(resolve(self.base)).fingerprint, "scale": scale}
        ledger = Ledger(self.work / f"{self.task}.jsonl", identity)
        found: dict[str, list[dict[str, Any]]] = {}
        for split in self.scale.splits:
            for seed in self.seeds:
                due = [name for name in self.methods if (split, seed, name) not in ledger]
                if due:
                    self._measure(ledger, split, seed, due)
                for name in self.methods:
                    found.setdefault(f"{split} / {name}", []).append(ledger[split, seed, name])
        return found

    def _measure(self, ledger: Ledger, split: str, seed: int, due: Sequence[str]) -> None:
        cell = self.cell(split, seed)
        for name in due:
            try:
                system, seconds = METHODS[name](cell)
                record = {"seconds": seconds, **measure(system, cell.case, self.scale)}
                del system
            except EulError as error:
                if type(error) is not EulError:  # bad input, no memory, a signal: not the method's doing
                    raise
                # An unbounded objective diverges: that is a result.
                record = {"failed": str(error)}
            ledger.add((split, seed, name), record)
            gc.collect()
            click.echo(f"{self.task}, {split}, seed {seed}, {name}: {_words(record)}", err=True)

    def cell(self, split: str, seed: int) -> Cell:
        """Return what the methods are given; the original model is taught at the first call."""
        case = make_case(self.task, self.data, self.scale.splits[split], self.scale, seed)
        folder = self.work / self.task / split.replace(" ", "-").replace("%", "percent") / f"seed{seed}"
        original = folder / "original"
        if not original.exists():
            folder.mkdir(parents=True, exist_ok=True)
            model, settings = load_model(self.base, self.device), replace(self.scale.teach, seed=seed)
            course = teach(model, case.teach, settings, checkpoint=folder / "original.checkpoint")
            write_model(original, model, TEACH_FILE, training_record(model, case.teach, settings, course))
            (folder / "original.checkpoint").unlink(missing_ok=True)
            del model
            gc.collect()
        unseen = spread_rows(case.unseen, self.scale.measured)
        target = mean(losses(WholeModel(load_model(str(original), self.device)), unseen))
        return Cell(
            case=case,
            scale=self.scale,
            seed=seed,
            base=self.base,
            original=original,
            target=target,
            device=self.device,
        )


def measure(system: Evaluated, case: Case, scale: Scale) -> dict[str, float]:
    """Return everything that a table shows of a system: losses in nats, all else between 0 and 1."""
    sets = {
        name: spread_rows(rows, scale.measured)
        for name, rows in (("forget", case.forget), ("retain", case.retain), ("held", case.held))
    }
    found: dict[str, float] = {}
    for name, rows in sets.items():
        row_losses = losses(system, rows)
        found[f"{name}_loss"] = mean(row_losses)
        if case.task == "tofu":
            found[f"{name}_probability"] = probability(row_losses)
            found[f"{name}_rouge"] = recall(system, rows, scale.tokens)
        elif case.task == "imdb":
            found[f"{name}_accuracy"] = label_accuracy(system, rows, LABELS)
        else:
            scores = summary_scores(system, rows, scale.tokens)
            found |= {f"{name}_{score}": value for score, value in scores.items()}
    if case.task == "tofu" and (ratio := truth_ratio(system, sets["forget"])) is not None:
        found["forget_truth_ratio"] = ratio
    return found


def _words(record: dict[str, Any]) -> str:
    if "failed" in record:
        return str(record["failed"])
    shown = [f"{name} {record[name]:.2f}" for name in ("forget_loss", "retain_loss", "held_loss")]
    return f"{', '.join(shown)}, {record['seconds']:.0f} s"
