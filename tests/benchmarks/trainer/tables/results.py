"""From measurements to a table: mean and spread over seeds, and the distance to the retrained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.output import mean, spread

RETRAIN = "retrain"
"""Name of the method that all others are compared with."""
SHOWN = {
    "tofu": ("forget_loss", "retain_loss", "held_loss", "forget_rouge", "retain_rouge", "held_rouge",
             "forget_truth_ratio"),
    "imdb": ("held_accuracy", "retain_accuracy", "forget_accuracy", "forget_loss", "retain_loss"),
    "samsum": ("held_rouge1", "held_rougeL", "retain_rouge1", "retain_rougeL", "forget_rouge1", "forget_rougeL",
               "forget_loss", "retain_loss"),
}  # fmt: skip
"""Measures that the Markdown table shows; the JSON has all."""


def distance(found: Mapping[str, Any], twin: Mapping[str, Any]) -> float:
    """Return how far a model is from the retrained one: the mean absolute difference of all measures from 0 to 1."""
    names = [name for name in found if name != "seconds" and not name.endswith("_loss") and name in twin]
    return mean([abs(found[name] - twin[name]) for name in names])


def cells(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the table by split and method.

    Args:
        found: Measurements of all seeds by "split / method"; the seeds of all methods are in the same order.

    Returns:
        By split, then by method: seeds, failed (seeds whose run diverged), mean and spread by measure,
        distance_to_retrain (its mean; 0 to 1), distance_spread, forget_loss_distance (nats), seconds.
    """
    table: dict[str, dict[str, Any]] = {}
    for name, seeds in found.items():
        split, _, method = name.partition(" / ")
        twins = found.get(f"{split} / {RETRAIN}")
        pairs = [(one, twins[index] if twins else None) for index, one in enumerate(seeds) if "failed" not in one]
        table.setdefault(split, {})[method] = _cell(pairs, len(seeds))
    return table


def _cell(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]], seeds: int) -> dict[str, Any]:
    cell: dict[str, Any] = {"seeds": seeds, "failed": seeds - len(pairs)}
    if not pairs:
        return cell
    names = [name for name in pairs[0][0] if name != "seconds"]
    cell["mean"] = {name: mean([one[name] for one, _ in pairs]) for name in names}
    cell["spread"] = {name: spread([one[name] for one, _ in pairs]) for name in names}
    cell["seconds"] = mean([one["seconds"] for one, _ in pairs])
    if all(twin is not None and "failed" not in twin for _, twin in pairs):
        away = [distance(one, twin) for one, twin in pairs if twin is not None]
        nats = [abs(one["forget_loss"] - twin["forget_loss"]) for one, twin in pairs if twin is not None]
        cell |= {"distance_to_retrain": mean(away), "distance_spread": spread(away), "forget_loss_distance": mean(nats)}
    return cell


def markdown(task: str, record: Mapping[str, Any]) -> str:
    """Return the tables of a task's record as Markdown, the scale said at the head."""
    scale, seeds = record["scale"], len(record["seeds"])
    lines = [f"Scale {scale['name']}: {scale['rows']}. {seeds} seeds, mean ± standard deviation.", ""]
    names = SHOWN[task]
    for split, row in record["splits"].items():
        heads = ["method", "distance to retrain", *(name.replace("_", " ") for name in names), "s"]
        lines += [f"Forgotten: {split}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        lines += [f"| {method} | {' | '.join(_row(cell, names))} |" for method, cell in row.items()]
        lines.append("")
    return "\n".join(lines)


def _row(cell: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    if "mean" not in cell:
        return ["diverged", *([""] * (len(names) + 1))]
    away = f"{cell['distance_to_retrain']:.3f} ± {cell['distance_spread']:.3f}" if "distance_to_retrain" in cell else ""
    shown = [f"{cell['mean'][name]:.2f} ± {cell['spread'][name]:.2f}" if name in cell["mean"] else "" for name in names]
    return [away, *shown, f"{cell['seconds']:.0f}"]


def headline(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for the summary, by method and split: mean, spread and distance to the retrained model."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for split, row in table.items():
        for method, cell in row.items():
            found.setdefault(method, {})[split] = {
                name: cell.get(name) for name in ("mean", "spread", "distance_to_retrain", "distance_spread", "failed")
            }
    return found
