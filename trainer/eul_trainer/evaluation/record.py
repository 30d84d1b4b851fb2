"""`metrics.json`: everything that was measured, as plain JSON."""

from __future__ import annotations

from typing import Any

from eul_trainer.evaluation.cache import code_digest
from eul_trainer.evaluation.comparison import compare
from eul_trainer.evaluation.evaluate import Evaluation
from eul_trainer.evaluation.policy import Policy
from eul_trainer.evaluation.systems import Systems
from eul_trainer.evaluation.verdict import judge
from eul_trainer.metrics.result import to_json
from eul_trainer.metrics.summary import summarise
from eul_trainer.output.package import versions


def metrics(evaluation: Evaluation, systems: Systems, policy: Policy) -> dict[str, Any]:
    """Return the record of an evaluation.

    Args:
        evaluation: What was measured.
        systems: The base model and the bundles.
        policy: What the bundles are judged by.

    Returns:
        Fingerprint of the base model; revision by system, None for one without a bundle; ids of the requests by bundle;
        where each one's answers come from, and how far a server's are those of transformers; summaries of the sets,
        each with its request's id or None; comparisons and gaps; verdicts on the bundles, what the same rules say of
        the base model and the twin, and the policy's digest; rows; digest of the code, and versions.
    """
    comparison = compare(evaluation)
    found: dict[str, Any] = {
        "base": systems.model.base.fingerprint,
        "systems": {name: systems.revisions.get(name) for name in evaluation.views},
        "requests": systems.requests,
        "answered": dict(evaluation.answered),
        "served_as_measured": dict(evaluation.served_as_measured),
        "sets": [
            {**summary, "request": evaluation.requests.get(summary["name"])} for summary in summarise(evaluation.rows)
        ],
        "comparisons": comparison.found,
        "gaps": comparison.gaps,
        "policy": policy.digest,
        "rows": to_json(evaluation.rows),
        "code": code_digest(),
        "versions": versions(),
    }
    judged = {name: judge(found, name, policy).to_json() for name in found["systems"]}
    bundles = {name: verdict for name, verdict in judged.items() if found["systems"][name]}
    return found | {"verdicts": bundles, "references": {name: judged[name] for name in judged if name not in bundles}}
