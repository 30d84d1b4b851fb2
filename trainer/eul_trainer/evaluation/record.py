"""`metrics.json`: everything that was measured, as plain JSON."""

from __future__ import annotations

from typing import Any

from eul_trainer.evaluation.comparison import compare
from eul_trainer.evaluation.evaluate import Evaluation
from eul_trainer.evaluation.systems import Systems
from eul_trainer.metrics.result import to_json
from eul_trainer.metrics.summary import summarise
from eul_trainer.output.package import versions


def metrics(evaluation: Evaluation, systems: Systems) -> dict[str, Any]:
    """Return the record of an evaluation.

    Args:
        evaluation: What was measured.
        systems: The base model and the bundles.

    Returns:
        Fingerprint of the base model; revision by system, None for one without a bundle; summaries of the sets;
        comparisons and gaps; rows; versions.
    """
    comparison = compare(evaluation)
    return {
        "base": systems.model.base.fingerprint,
        "systems": {name: systems.revisions.get(name) for name in evaluation.views},
        "sets": summarise(evaluation.rows),
        "comparisons": comparison.found,
        "gaps": comparison.gaps,
        "rows": to_json(evaluation.rows),
        "versions": versions(),
    }
