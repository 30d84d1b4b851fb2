"""Training on top of a bundle: what is trained is what the concatenation computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from eul_serve.errors import BundleMismatchError, InputError
from eul_serve.format import read_bundle
from eul_serve.format.weights import load_layers
from eul_serve.peft import eul_layers, load, observe
from eul_trainer.fit.run import fit
from eul_trainer.forward.encoding import encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.model.adapter import Taps
from eul_trainer.model.below import read_below, trained_layers
from eul_trainer.model.load import load_model
from eul_trainer.model.trainable import make_trainable
from eul_trainer.records import Fields, read_rows
from eul_trainer.settings import FitSettings

RunTrainer = Callable[..., dict[str, Any]]
SETTINGS = FitSettings(rank=4, learning_rate=0.05, target_low=8.5, target_high=9.5, steps=9, batch_size=8)


def test_the_layers_below_are_on_frozen_and_not_observed(tiny_model: Path, layers: Path) -> None:
    below = read_bundle(layers / "first")
    model = load_model(str(tiny_model))
    trained = make_trainable(model, SETTINGS, [below])
    assert sorted({name.split(".")[-2] for name in trained.parameters}) == ["default"]
    ids = torch.arange(5, 25)[None]
    taps = Taps()
    with torch.no_grad():
        with observe(trained.network, taps):
            on = trained.network(ids).logits
        with trained.off():
            off = trained.network(ids).logits
        base = load_model(str(tiny_model)).network(ids).logits
        bundle = load(tiny_model, below.path)(ids).logits
    assert torch.equal(on, bundle)  # a fresh layer adds nothing to the bundle
    assert torch.equal(off, base)  # the teacher is the base model, not the bundle
    assert len(taps.seen) == len(eul_layers(trained.network)) == 2
    assert all(hidden.shape[-1] == SETTINGS.rank for _, _, hidden, _ in taps.seen)


def test_a_layer_fuses_with_what_it_was_trained_on_by_concatenation(
    tiny_model: Path, data: Path, layers: Path, tmp_path: Path, trainer: RunTrainer
) -> None:
    out, fused = tmp_path / "second", tmp_path / "fused"
    line = ["fit", "--model", tiny_model, "--forget", data / "second.jsonl", "--retain", data / "retain.jsonl",
            "--rank", "4", "--steps", "9", "--batch-size", "8", "--learning-rate", "0.05", "--target-low", "8.5",
            "--target-high", "9.5", "--out", out, "--on-top-of", layers / "first"]  # fmt: skip
    found = trainer(*line)
    below = read_bundle(layers / "first").revision
    assert read_bundle(out).manifest.settings["on_top_of"] == [below]
    trainer("fuse", layers / "first", out, "--out", fused)
    assert sorted(read_bundle(fused).manifest.parents) == sorted([below, found["revision"]])
    model = load_model(str(tiny_model))
    rows = encode(model.tokenizer, read_rows(data / "second.jsonl", Fields()), limit=200)
    PeftModel.from_pretrained(model.network, str(fused)).eval()
    losses = row_losses(Runner(model, rows), rows)
    assert sum(losses) / len(losses) == pytest.approx(found["forget_after"], abs=1e-4)
    base = read_bundle(out).manifest.base.fingerprint
    assert len(read_below([fused], base)) == 1
    with pytest.raises(InputError, match=f"trained on top of {below}, which is not among the bundles"):
        read_below([out], base)
    first = load_layers(read_bundle(layers / "first"))
    ranks = {module: layer.down.shape[0] for module, layer in load_layers(read_bundle(fused)).items()}
    assert ranks == {module: layer.down.shape[0] + 4 for module, layer in first.items()}


def test_an_unbroken_run_and_a_resumed_one_agree_on_top_of_a_bundle(
    tiny_model: Path, data: Path, layers: Path, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, losses: dict[str, float]) -> None:
        if done == 8:
            raise Stop

    rows = read_rows(data / "second.jsonl", Fields()), read_rows(data / "retain.jsonl", Fields())
    below = [read_bundle(layers / "first")]
    path = tmp_path / "checkpoint"
    whole = fit(load_model(str(tiny_model)), *rows, SETTINGS, below=below)
    with pytest.raises(Stop):
        fit(load_model(str(tiny_model)), *rows, SETTINGS, below=below, checkpoint=path, watch=stop)
    with pytest.raises(InputError, match="the bundle to train on top of changed"):
        fit(load_model(str(tiny_model)), *rows, SETTINGS, checkpoint=path)
    rest = fit(load_model(str(tiny_model)), *rows, SETTINGS, below=below, checkpoint=path)
    assert rest.resumed == 8
    assert all(torch.equal(rest.layers[module].up, layer.up) for module, layer in whole.layers.items())


def test_what_cannot_lie_below_is_refused(
    tiny_model: Path, other_model: Path, make_bundle: Callable[..., Any], layers: Path, tmp_path: Path
) -> None:
    base = read_bundle(layers / "first").manifest.base.fingerprint
    first, second = layers / "first", layers / "second"
    assert trained_layers(read_below([first, second], base)) == (
        read_bundle(first).revision,
        read_bundle(second).revision,
    )
    with pytest.raises(InputError, match="in two of the bundles"):
        read_below([first, first], base)
    stranger = make_bundle(tmp_path / "stranger", other_model)
    with pytest.raises(BundleMismatchError, match="made for base model"):
        read_below([stranger.path], base)
