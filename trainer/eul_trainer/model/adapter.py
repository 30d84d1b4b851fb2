"""Unlearning layers on a loaded model: fresh ones to train, or a bundle's to evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel, get_peft_model

from eul_serve.format import Bundle, BundleConfig
from eul_serve.peft import EulConfig, eul_layers
from eul_trainer.forward.batches import Batch
from eul_trainer.model.load import LoadedModel, Network


def fresh_layers(model: LoadedModel, config: BundleConfig, init_seed: int, below: Sequence[Bundle] = ()) -> Network:
    """Put fresh, trainable layers on a model; with them it is still exactly the base model, or that with `below`.

    The layers of `below` read the same feed-forward outputs as the fresh ones and add up with them, so that what is
    trained is what a concatenation of all of them computes. They are frozen, and no observer sees them.

    Args:
        model: The base model; its modules are wrapped in place.
        config: Rank, activation and so on.
        init_seed: Seed of every D; requests that are to be fused share it.
        below: Bundles whose layers are on and frozen.

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
    peft = get_peft_model(model.network, settings).eval()
    names = [f"below{number}" for number in range(len(below))]
    for name, bundle in zip(names, below, strict=True):
        peft.load_adapter(str(bundle.path), adapter_name=name)
    if names:
        peft.base_model.set_adapter(["default", *names])  # trains them all, until the next line
    for layer in eul_layers(peft).values():
        for name in names:
            layer.eul_down[name].requires_grad_(False)
            layer.eul_up[name].requires_grad_(False)
            layer.unobserved.add(name)
    return peft


class BundleStack:
    """Several bundles on one model, of which one at a time is on, or none."""

    def __init__(self, model: LoadedModel, bundles: Sequence[tuple[str, Bundle]]) -> None:
        self._peft: Network = None
        # PEFT's adapter names become parts of module paths, so they are numbered and not the bundles' own names.
        self._names = {name: f"bundle{index}" for index, (name, _) in enumerate(bundles)}
        for name, bundle in bundles:
            adapter = self._names[name]
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(model.network, str(bundle.path), adapter_name=adapter)
            else:
                self._peft.load_adapter(str(bundle.path), adapter_name=adapter)
        if self._peft is not None:
            self._peft.eval()

    @contextmanager
    def on(self, name: str | None) -> Iterator[None]:
        """Have one bundle on while the context lasts; None has none."""
        if self._peft is None:
            yield
        elif name is None:
            with self._peft.disable_adapter():
                yield
        else:
            self._peft.set_adapter(self._names[name])
            yield


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

    def outputs(
        self, batch: Batch, rows: torch.Tensor, *, first: bool = True
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each module's (input, layer output) on the tokens of some rows, and on the shared first tokens.

        Args:
            batch: The batch that was run.
            rows: Which rows count, (n,), boolean.
            first: Whether the first tokens that all rows share count; of several processes they count in one.

        Returns:
            Per module, tensors of shape (tokens, d).
        """
        found = []
        for module, y, _, delta in self.seen:
            places = batch.seen_by(module).of(rows, first=first)
            found.append((y.flatten(0, 1).index_select(0, places), delta.flatten(0, 1).index_select(0, places)))
        return found
