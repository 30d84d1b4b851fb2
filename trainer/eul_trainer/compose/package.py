"""The directory of a composite: the files of both parts, and a manifest of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from eul_serve.format import Bundle, Manifest, describe_files, write_bundle
from eul_serve.format.bundle import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from eul_serve.format.canaries import CANARIES_FILE
from eul_serve.format.composite import KEY, fine_tune_digest
from eul_serve.format.files import read_large
from eul_serve.format.lora import LORA_CONFIG_FILE, LORA_WEIGHTS_FILE
from eul_serve.format.manifest import round_metric
from eul_trainer.compose.card import composite_card
from eul_trainer.compose.fine_tune import FineTune
from eul_trainer.compose.recall import Recall


def write_composite(
    out: Path,
    bundle: Bundle,
    fine_tune: FineTune,
    found: Mapping[str, Recall],
    limits: Mapping[str, float],
    *,
    passed: bool = True,
) -> Bundle:
    """Write a composite whole or not at all.

    Args:
        out: The directory; new or empty.
        bundle: The bundle.
        fine_tune: The fine-tune.
        found: Losses by set of rows.
        limits: What they were held against, nats.
        passed: Whether they keep to it; engines refuse a composite that does not.

    Returns:
        The composite as read back with every check.
    """
    # The bundle's canaries go along: what it hides must stay hidden beside the fine-tune.
    listed = bundle.manifest.files
    kept = [name for name in (CONFIG_FILE, WEIGHTS_FILE, CANARIES_FILE) if name in listed]
    files = {name: read_large(bundle.path, name, listed[name]) for name in kept}
    files |= {LORA_CONFIG_FILE: fine_tune.config.to_bytes(), LORA_WEIGHTS_FILE: fine_tune.weights}
    settings = {"bundle": bundle.revision, "fine_tune": fine_tune_digest(describe_files(files))}
    files[CARD_FILE] = composite_card(bundle, fine_tune, found, settings).encode()
    losses = {name: {key: round_metric(loss) for key, loss in asdict(one).items()} for name, one in found.items()}
    manifest = Manifest(
        base=bundle.manifest.base,
        requests=bundle.manifest.requests,
        parents=(bundle.revision,),
        settings={KEY: settings},
        metrics={KEY: {"limits": dict(limits), "losses": losses, "passed": passed}},
        training_dtype=bundle.manifest.training_dtype,
        files=describe_files(files),
    )
    return write_bundle(out, manifest, files)
