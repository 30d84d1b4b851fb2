"""The offline half: base model, one layer for each request, the fused bundle, their measurements, the registry."""

from __future__ import annotations

from eul_trainer.demo.plan import BOTH, Plan
from eul_trainer.demo.shell import run


def train(plan: Plan) -> None:
    """Fit one layer for each request, and fuse them."""
    if plan.make_model:
        run("eul-train", "base", "--out", str(plan.model))
    for topic in plan.topics:
        run(
            "eul-train", "fit", "--model", str(plan.model), "--request", topic,
            "--forget", str(plan.forget(topic, "train")), "--retain", str(plan.retain("train")),
            "--out", str(plan.bundles[topic]), *plan.fit_options,
        )  # fmt: skip
    layers = [str(plan.bundles[topic]) for topic in plan.topics]
    run(
        "eul-train", "fuse", *layers, "--out", str(plan.bundles[BOTH]),
        "--model", str(plan.model), "--retain", str(plan.retain("train")),
    )  # fmt: skip


def evaluate(plan: Plan) -> None:
    """Measure every bundle on held-out rows: paraphrases of what it must forget, and facts that it must keep."""
    bundles = [word for path in plan.bundles.values() for word in ("--bundle", str(path))]
    forget = [word for topic in plan.topics for word in ("--forget", f"{topic}={plan.forget(topic, 'heldout')}")]
    run(
        "eul-train", "eval", "--model", str(plan.model), *bundles, *forget,
        "--retain", str(plan.retain("heldout")), "--out", str(plan.evaluation),
    )  # fmt: skip


def publish(plan: Plan) -> dict[str, str]:
    """Publish every bundle under its own name with the alias `stable`.

    Args:
        plan: The demonstration's plan.

    Returns:
        Revision of each bundle, by name.
    """
    return {name: publish_one(plan, name, name, "--alias", "stable") for name in plan.bundles}


def publish_one(plan: Plan, bundle: str, name: str, *options: str) -> str:
    """Publish one bundle under a name and return its revision."""
    last = run(
        "eul", "publish", str(plan.bundles[bundle]), "--registry", str(plan.registry), "--name", name, *options
    ).splitlines()[-1]
    return last.partition("@")[2]
