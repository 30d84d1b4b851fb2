"""Every layout of model goes the whole way: two requests are trained, saved, loaded in PEFT, and fused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.format import read_bundle
from eul_serve.format.weights import load_layers
from eul_serve.peft import load


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gpt2", "t5"])
def test_two_requests_are_trained_saved_loaded_and_fused(
    kind: str,
    make_layout: Callable[..., Path],
    data: Path,
    tmp_path: Path,
    trainer: Callable[..., dict[str, Any]],
) -> None:
    model = make_layout(kind, tmp_path)
    paths = {name: tmp_path / "layers" / name for name in ("first", "second")}
    for name, path in paths.items():
        trainer(
            "fit", "--model", model, "--forget", data / f"{name}.jsonl", "--retain", data / "retain.jsonl",
            "--out", path, "--rank", 4, "--steps", 3, "--batch-size", 6, "--learning-rate", 0.01,
            "--settle", 0, "--scale", 1,
        )  # fmt: skip
    fused = tmp_path / "fused"
    found = trainer("fuse", *paths.values(), "--out", fused, "--method", "concat")
    assert sorted(found["requests"]) == ["first", "second"]
    inputs = {"input_ids": torch.arange(5, 25)[None]}
    if kind == "t5":
        inputs["decoder_input_ids"] = torch.arange(8)[None]
    with torch.no_grad():
        logits = [load(model, path)(**inputs).logits for path in (*paths.values(), fused)]
    assert all(torch.isfinite(found).all() for found in logits)
    first, second, both = (load_layers(read_bundle(path)) for path in (*paths.values(), fused))
    assert all(layer.up.any() for layer in both.values())
    for module, layer in both.items():  # without retained rows the fusion is the exact sum of the two functions
        y = torch.randn(3, layer.up.shape[0])
        wanted = sum(
            torch.relu(y @ own[module].down.T + own[module].bias) @ own[module].up.T for own in (first, second)
        )
        torch.testing.assert_close(torch.relu(y @ layer.down.T + layer.bias) @ layer.up.T, wanted)
