"""Bundles, and vLLM's plain adapters of the same rank on the module that ours stand behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from eul_serve.format.fingerprint import read_model_config
from tests.conftest import random_bundle

SCALE = 0.01
"""Deviation of the random weights: small enough that answers stay text-like, large enough not to be zero."""


def make_bundle(path: Path, model: Path, rank: int, seed: int) -> Path:
    """Write a bundle of random layers behind every block, and return its directory."""
    return random_bundle(path, model, rank=rank, seed=seed, scale=SCALE).path


def make_lora(path: Path, model: Path, rank: int, seed: int) -> Path:
    """Write a plain LoRA adapter of random weights on every block's down projection, and return its directory."""
    shape, generator = read_model_config(model), torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for block in range(shape["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{block}.mlp.down_proj"
        inner, width = shape["intermediate_size"], shape["hidden_size"]
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, inner, generator=generator) * SCALE
        tensors[f"{name}.lora_B.weight"] = torch.randn(width, rank, generator=generator) * SCALE
    path.mkdir(parents=True)
    safetensors.torch.save_file(tensors, path / "adapter_model.safetensors")
    config: dict[str, Any] = {
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["down_proj"], "bias": "none",
        "task_type": "CAUSAL_LM",
    }  # fmt: skip
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path
