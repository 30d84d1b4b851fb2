"""The offline half: base model, a layer for each request, the fused bundle, what they show, the registry."""

from __future__ import annotations

from eul_trainer.demo.plan import BOTH, Plan
from eul_trainer.demo.shell import CommandError, run
from eul_trainer.demo.summary import Judged


def train(plan: Plan) -> None:
    """Fit one layer for each request, and fuse them."""
    if plan.make_model:
        run("eul-train", "base", "--out", str(plan.model))
    for topic in plan.topics:
        run(
            "eul-train", "fit", "--model", str(plan.model), "--request", topic,
            "--forget", str(plan.forget(topic, "train")), "--retain", str(plan.retain("train")),
            "--out", str(plan.bundles[topic]), *plan.target, *plan.fit_options,
        )  # fmt: skip
    layers = [str(plan.bundles[topic]) for topic in plan.topics]
    run(
        "eul-train", "fuse", *layers, "--out", str(plan.bundles[BOTH]),
        "--model", str(plan.model), "--retain", str(plan.retain("train")),
    )  # fmt: skip


def evaluate(plan: Plan) -> None:
    """Measure every bundle on held-out rows: paraphrases of what must go, facts that must stay, and inventions."""
    bundles = [word for path in plan.bundles.values() for word in ("--bundle", str(path))]
    forget = [word for topic in plan.topics for word in ("--forget", f"{topic}={plan.forget(topic, 'heldout')}")]
    run(
        "eul-train", "eval", "--model", str(plan.model), *bundles, *forget,
        "--retain", str(plan.retain("heldout")), "--unseen", str(plan.unseen), "--out", str(plan.evaluation),
    )  # fmt: skip


def certify(plan: Plan) -> Judged:
    """Sign what the fused bundle was shown to forget and keep, and check the signature as the one who receives it does.

    Args:
        plan: The demonstration's plan.

    Returns:
        What the check said, or why the bundle gets no certificate.
    """
    private, public = plan.out / "certificate.pem", plan.certificate.with_suffix(".pub")
    run("eul", "keygen", "--private", str(private), "--public", str(public), quiet=True)
    try:
        run(
            "eul-train", "certify", "--bundle", str(plan.bundles[BOTH]), "--evaluation", str(plan.evaluation),
            "--key", str(private), "--out", str(plan.certificate), quiet=True,
        )  # fmt: skip
    except CommandError as error:
        return Judged(False, str(error))
    finally:
        private.unlink()  # a demonstration's key signs nothing else
    said = run(
        "eul", "verify", str(plan.bundles[BOTH]), "--model", str(plan.model),
        "--certificate", str(plan.certificate), "--public-key", str(public),
    )  # fmt: skip
    return Judged(True, said.splitlines()[-1])


def publish(plan: Plan) -> dict[str, str]:
    """Make the publisher's key, and publish every bundle under its own name with the alias `stable`.

    Args:
        plan: The demonstration's plan.

    Returns:
        Revision of each bundle, by name.
    """
    public = plan.publisher.with_suffix(".pub")
    run("eul", "keygen", "--private", str(plan.publisher), "--public", str(public), quiet=True)
    return {name: publish_one(plan, name, name, "--alias", "stable") for name in plan.bundles}


def publish_one(plan: Plan, bundle: str, name: str, *options: str) -> str:
    """Publish one bundle under a name, signed, and return its revision."""
    said = run(
        "eul", "publish", str(plan.bundles[bundle]), "--registry", str(plan.registry), "--name", name,
        "--sign", str(plan.publisher), *options,
    )  # fmt: skip
    return said.splitlines()[-1].partition("@")[2]
