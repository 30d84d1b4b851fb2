"""Unlearning layers on a loaded model: fresh ones to train, or a bundle's to evaluate."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model

from eul_serve.format import Bundle, BundleConfig, read_bundle
from eul_serve.peft import EulConfig
from eul_trainer.batches import Batch
from eul_trainer.model import LoadedModel, Network


def fresh_layers(model: LoadedModel, config: BundleConfig, init_seed: int) -> Network:
    """Put fresh, trainable layers on a model; with them it is still exactly the base model.

    Args:
        model: The base model; its modules are wrapped in place.
        config: Rank, activation and so on.
        init_seed: Seed of every D; requests that are to be fused share it.

    Returns:
        The PEFT model.
    """
    settings = EulConfig(
        r=config.rank,
        activation=config.activation,
        hidden_bias=config.hidden_bias,
        target_modules=list(config.target_modules),
        base_fingerprint=config.base_fingerprint,
        task_type=config.task_type,
        init_seed=init_seed,
    )
    return get_peft_model(model.network, settings).eval()


def bundle_layers(model: LoadedModel, path: Path) -> tuple[Network, Bundle]:
    """Put a bundle on a model, after checking that it was made for it.

    Args:
        model: The base model; its modules are wrapped in place.
        path: The bundle's directory.

    Returns:
        The PEFT model and the bundle.
    """
    bundle = read_bundle(path, model.base.fingerprint)
    return PeftModel.from_pretrained(model.network, str(path)).eval(), bundle


class Taps:
    """What every layer computed since the last `clear`, by module: an observer for `eul_serve.peft.observe`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def __call__(self, module: str, y: torch.Tensor, hidden: torch.Tensor, delta: torch.Tensor) -> None:
        """Take one layer's input (..., d), hidden units (..., r) and output (..., d)."""
        self.seen.append((module, y, hidden, delta))

    def clear(self) -> None:
        """Forget what was seen."""
        self.seen.clear()

    def outputs(self, batch: Batch, rows: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each module's (input, layer output) on the tokens of some rows, and on the shared first tokens.

        Args:
            batch: The batch that was run.
            rows: Which rows count, (n,), boolean.

        Returns:
            Per module, tensors of shape (tokens, d).
        """
        parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for module, y, _, delta in self.seen:
            mask = batch.mask_of(module, y.shape[1])
            if mask.shape[0] == len(rows):
                mask = mask & rows[:, None]
            parts.setdefault(module, []).append((y[mask], delta[mask]))
        return [
            (torch.cat([y for y, _ in found]), torch.cat([delta for _, delta in found])) for found in parts.values()
        ]
