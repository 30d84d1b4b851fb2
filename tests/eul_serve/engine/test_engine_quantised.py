"""A quantised copy of a base model serves the bundles of the model that it was made from, where the policy says so.

The copy has int8 weights by channel, and vLLM quantises what goes into each linear module by token. The layers stand
outside of that, in the engine's dtype. The reference does the same arithmetic in float32, in transformers.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import safetensors.torch
import torch

from eul_serve.engine.base import ResidentBundle
from eul_serve.engine.settings import EngineSettings
from eul_serve.errors import BundleMismatchError
from eul_serve.format import Bundle, fingerprint

from .conftest import PROMPT, answer, place, work
from .reference import hooked, load

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]
LEVELS = 127
TOLERANCE = 5e-3
"""On log-probabilities: int8 products are exact, and inputs that lie on an edge are rounded to either side."""
SCHEME = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True
            },
        }
    },
}  # fmt: skip


def rounded(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int8 levels of every row, and the row's scale."""
    scale = values.abs().amax(-1, keepdim=True) / LEVELS
    return torch.round(values / scale).clamp(-LEVELS, LEVELS), scale


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantised")


@pytest.fixture(scope="module")
def copy(root: Path, tiny_model: Path) -> Path:
    """An int8 copy of the tiny model."""
    path = root / "int8"
    shutil.copytree(tiny_model, path)
    tensors = {}
    for name, weight in safetensors.torch.load_file(tiny_model / "model.safetensors").items():
        if name.endswith("proj.weight"):
            levels, scale = rounded(weight)
            tensors |= {name: levels.to(torch.int8), f"{name}_scale": scale}
        else:
            tensors[name] = weight
    safetensors.torch.save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "quantization_config": SCHEME}))
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(copy: Path, tiny_model: Path, root: Path) -> AsyncIterator[Any]:
    from eul_serve.engine.vllm_engine import VllmEngine

    engine = await VllmEngine.start(
        EngineSettings(
            model=copy, max_context=256, slots=2, capacity=3, deny_base=False, kv_cache_gib=0.1,
            derived_from={fingerprint(copy): fingerprint(tiny_model)}, bundles=root / "cache",
        )
    )  # fmt: skip
    yield engine
    await engine.close()


@torch.inference_mode()
def expected(model: Path, bundle: ResidentBundle | None, tokens: list[int]) -> list[float]:
    """Log-probabilities of an answer with every linear module's weights and inputs rounded to int8."""
    network = load(model)
    for name, module in network.named_modules():
        if name.endswith("proj"):
            levels, scale = rounded(module.weight)
            module.weight.copy_(levels * scale)
            module.register_forward_pre_hook(lambda _module, args: (torch.mul(*rounded(args[0])),))
    with hooked(network, bundle):
        logits = network(torch.tensor([[*PROMPT, *tokens]])).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    return logits[torch.arange(len(tokens)), torch.tensor(tokens)].tolist()


async def test_it_serves_the_bundles_of_what_it_was_made_from(
    engine: Any, root: Path, tiny_model: Path, make_bundle: Callable[..., Bundle]
) -> None:
    assert engine.info.fingerprint == fingerprint(tiny_model)
    bundles = [
        place(make_bundle(root / f"b{seed}", tiny_model, seed=seed, scale=1.0), root / "cache") for seed in (1, 2)
    ]
    for bundle in bundles:
        await engine.load(bundle)
    kinds: list[ResidentBundle | None] = [None, *bundles]
    answers = await asyncio.gather(*(answer(engine, work(bundle)) for bundle in kinds))
    for bundle, (tokens, logprobs) in zip(kinds, answers, strict=True):
        assert logprobs == pytest.approx(expected(tiny_model, bundle, tokens), abs=TOLERANCE)
    assert len({round(logprobs[0], 2) for _, logprobs in answers}) == 3


async def test_a_bundle_of_the_copy_itself_is_refused(
    engine: Any, copy: Path, root: Path, make_bundle: Callable[..., Bundle]
) -> None:
    with pytest.raises(BundleMismatchError, match="made for base model"):
        await engine.load(place(make_bundle(root / "own", copy), root / "cache"))
