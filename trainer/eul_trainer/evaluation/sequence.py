"""What every fusion and every revocation does to each request, in the orders in which requests may come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from eul_trainer.evaluation.evaluate import Evaluation
from eul_trainer.evaluation.roles import BASE
from eul_trainer.evaluation.workshop import Made
from eul_trainer.metrics.summary import summarise

SHOWN = ("loss", "accuracy", "rouge_l", "gibberish", "unchanged", "divergence")
"""Means of a set that the record has of every step."""


def sequence_record(orders: Sequence[Sequence[Made]], evaluation: Evaluation) -> dict[str, Any]:
    """Return what `sequence.json` says of the sets.

    Args:
        orders: The steps of each order.
        evaluation: All their bundles, measured under the name that `Made.name` gives.

    Returns:
        `before`: the base model's means by set; `orders`: per order its requests and steps, each step with its means.
    """
    summaries = summarise(evaluation.rows)

    def means(system: str) -> dict[str, Any]:
        return {
            part["name"]: {
                "kind": part["kind"],
                "request": evaluation.requests.get(part["name"]),
                "rows": part["rows"],
                **{name: part["systems"][system][name] for name in SHOWN},
            }
            for part in summaries
        }

    return {
        "before": means(BASE),
        "orders": [
            {
                "order": [part.step.request for part in made if part.step.action == "fuse"],
                "steps": [
                    {
                        **asdict(part.step),
                        "requests": list(part.step.requests),
                        "revision": part.bundle.revision,
                        "seconds": part.seconds,
                        "sets": means(part.name),
                    }
                    for part in made
                ],
            }
            for made in orders
        ],
    }
