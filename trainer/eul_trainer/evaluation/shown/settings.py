"""What a page's numbers depend on: models, bundles, policy, code and versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eul_trainer.evaluation.roles import BASE, TWIN


def settings(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the numbers depend on.

    Args:
        metrics: `metrics.json`.

    Returns:
        Pairs of a name and a digest, version or few words.
    """
    return [
        ("base model, fingerprint", metrics["base"]),
        *(
            (f"{name}, revision of the bundle" if revision else name, revision or _without(name))
            for name, revision in metrics["systems"].items()
            if name != BASE
        ),
        *((f"{name}, who answered", _who(metrics, name)) for name in metrics.get("answered", {})),
        ("policy", metrics["policy"]),
        ("code that measured", metrics["code"]),
        *((f"version of {name}", version) for name, version in metrics.get("versions", {}).items()),
    ]


def _who(metrics: Mapping[str, Any], name: str) -> str:
    """Return where a system's answers come from, and how far those of a server are what was measured."""
    if found := metrics.get("served_as_measured", {}).get(name):
        return f"a server; of {found['rows']} answers {found['same']:.0%} are those of transformers, word for word"
    return str(metrics["answered"][name])


def _without(name: str) -> str:
    if name == TWIN:
        return "a model that was taught the same without what is to be forgotten"
    return "a model of its own, without a bundle"
