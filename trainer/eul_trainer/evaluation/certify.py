"""From an evaluation and attacks to a certificate's statement: everything is checked against the bundle once more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eul_serve.errors import BundleMismatchError, InputError, RefusedError
from eul_serve.format import Bundle
from eul_serve.format.digest import digest_file
from eul_serve.signing import Statement
from eul_trainer.evaluation.policy import Policy
from eul_trainer.evaluation.roles import BASE, TWIN
from eul_trainer.evaluation.verdict import judge
from eul_trainer.evaluation.written import ATTACK, METRICS, REPORT, read_written


def make_statement(bundle: Bundle, evaluation: Path, attacks: Sequence[Path], policy: Policy) -> Statement:
    """Return what can be stated of a bundle.

    Args:
        bundle: The bundle.
        evaluation: Directory that `eval` wrote.
        attacks: Directories that `attack` wrote.
        policy: The policy; it must be the one that the evaluation was judged by.

    Returns:
        The statement, with means alone and no row.

    Raises:
        InputError: A file cannot be read, or the evaluation was judged by another policy.
        BundleMismatchError: An evaluation or attack is of another bundle or base model.
        RefusedError: The bundle does not pass, or what is written of that is not what its numbers give.
    """
    metrics = read_written(evaluation / METRICS)
    system = _system(metrics, bundle, evaluation)
    if metrics.get("base") != bundle.manifest.base.fingerprint:
        raise BundleMismatchError(f"evaluation {str(evaluation)!r}: it is of another base model than the bundle")
    if metrics.get("policy") != policy.digest:
        raise InputError(
            "--policy: the evaluation was judged by another one; give that one, or evaluate again with this"
        )
    verdict = judge(metrics, system, policy)
    if json.loads(json.dumps(verdict.to_json())) != metrics["verdicts"].get(system):
        raise RefusedError(f"evaluation {str(evaluation)!r}: its verdict is not what its numbers give; evaluate again")
    if not verdict.passed:
        raise RefusedError(f"no certificate: {verdict.sentence}")
    found = {f"{path.name}/{ATTACK}": _attack(path, bundle) for path in attacks}
    if len(found) < len(attacks):
        raise InputError("--attack: two directories have the same name; rename one")
    return Statement(
        revision=bundle.revision,
        base=bundle.manifest.base.fingerprint,
        requests={request.id: request.data for request in bundle.manifest.requests},
        policy=policy.digest,
        verdict=verdict.to_json(),
        measured={**_measured(metrics, system), "attacks": found},
        evidence={
            **{name: digest_file(evaluation / name) for name in (METRICS, REPORT)},
            **{f"{path.name}/{ATTACK}": digest_file(path / ATTACK) for path in attacks},
        },
        evaluator={"code": metrics["code"], "versions": metrics["versions"]},
        issued=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _system(found: Mapping[str, Any], bundle: Bundle, where: Path) -> str:
    """Return the name that the bundle has there."""
    for name, revision in found["systems"].items():
        if revision == bundle.revision:
            return str(name)
    raise BundleMismatchError(f"{str(where)!r}: the bundle {bundle.revision} was not measured there; measure it")


def _measured(metrics: Mapping[str, Any], system: str) -> dict[str, Any]:
    """Return means, comparisons and gaps of the bundle, beside the base model and the twin."""
    shown = [name for name in (BASE, system, TWIN) if name in metrics["systems"]]
    sets = [
        {
            "name": part["name"],
            "kind": part["kind"],
            "rows": part["rows"],
            "request": part.get("request"),
            "systems": {name: part["systems"][name] for name in shown},
        }
        for part in metrics["sets"]
    ]
    gaps = [gap for gap in metrics["gaps"] if gap["system"] == system]
    return {
        "system": system,
        **_answered(metrics, system),
        "sets": sets,
        "comparisons": metrics["comparisons"].get(system, {}),
        "gaps": gaps,
    }


def _answered(found: Mapping[str, Any], system: str) -> dict[str, Any]:
    """Return where answers came from, and how far a server's are those of transformers; older files do not say."""
    shown = (BASE, system, TWIN)
    return {
        key: {name: found[key][name] for name in shown if name in found[key]}
        for key in ("answered", "served_as_measured")
        if found.get(key)
    }


def _attack(folder: Path, bundle: Bundle) -> list[dict[str, Any]]:
    found = read_written(folder / ATTACK)
    system = _system(found, bundle, folder)
    shown = (BASE, system, TWIN)
    return [
        {
            **{name: result[name] for name in ("kind", "name", "budget", "set", "rows")},
            "systems": {name: result["systems"][name] for name in shown if name in result["systems"]},
            "recovered": result["recovered"].get(system, {}),
            **_answered(found, system),
        }
        for result in found["attacks"]
    ]
