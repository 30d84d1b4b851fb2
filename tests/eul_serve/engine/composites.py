"""Composites of random parts for the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch

from eul_serve.format import Bundle
from eul_trainer.compose.fine_tune import FineTune, read_peft_lora
from eul_trainer.compose.package import write_composite
from eul_trainer.compose.recall import Recall


def compose(path: Path, bundle: Bundle, fine_tune: FineTune, *, passed: bool = True) -> Bundle:
    """Write a composite of parts that nobody measured."""
    losses = {"r1": Recall(base=1.0, bundle=3.0, fine_tune=1.0, both=3.0)}
    return write_composite(path, bundle, fine_tune, losses, {}, passed=passed)


def random_lora(path: Path, seed: int, rank: int = 4) -> FineTune:
    """A LoRA on modules that vLLM fuses with others (q, up), on one that it does not, and on one inside our layer."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "self_attn.q_proj": (64, 64),
        "self_attn.o_proj": (64, 64),
        "mlp.up_proj": (128, 64),
        "mlp.down_proj": (64, 128),
    }
    tensors = {}
    for block in range(2):
        for module, (out, inner) in shapes.items():
            name = f"base_model.model.model.layers.{block}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, inner, generator=generator) * 0.2
            tensors[f"{name}.lora_B.weight"] = torch.randn(out, rank, generator=generator) * 0.2
    path.mkdir()
    safetensors.torch.save_file(tensors, path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return read_peft_lora(path)
