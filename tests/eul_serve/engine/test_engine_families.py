"""Families of models: what the probe expects of each, and real engines that answer as transformers with the layers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.engine.probe import ARCHITECTURES, compare, make_probe
from eul_serve.engine.settings import EngineSettings
from eul_serve.errors import InputError
from eul_serve.format import fingerprint

from .conftest import answer, place, work
from .reference import greedy_answers, hooked, load

TOKENS = 12
EXPERTS = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 32,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "Llama": {}, "Mistral": {"sliding_window": None}, "Qwen2": {}, "Qwen3": {},
    "Gemma": {"hidden_activation": "gelu_pytorch_tanh"}, "Qwen2Moe": EXPERTS, "Qwen3Moe": EXPERTS,
}  # fmt: skip
"""Families that a start can prove, with what their configuration has beyond the tiny Llama's."""


@pytest.fixture(scope="module")
def make_family(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Callable[[str], Path]:
    """Factory of random models of a family, with the tiny model's tokenizer and norms that are not all one."""
    import transformers

    def make(family: str) -> Path:
        path = tmp_path_factory.mktemp("families") / family
        config = getattr(transformers, f"{family}Config")(
            vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, head_dim=32, max_position_embeddings=512, pad_token_id=0, eos_token_id=1,
            bos_token_id=1, initializer_range=0.2, **SETTINGS[family],
        )  # fmt: skip
        torch.manual_seed(0)
        model = getattr(transformers, f"{family}ForCausalLM")(config).float()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.add_(torch.randn_like(parameter) / 10)
        model.save_pretrained(path)
        for file in tiny_model.glob("tokenizer*"):
            shutil.copy(file, path)
        shutil.copy(tiny_model / "chat_template.jinja", path)
        return path

    return make


def test_every_family_of_the_probe_is_here() -> None:
    assert {f"{family}ForCausalLM" for family in SETTINGS} == set(ARCHITECTURES)


@pytest.mark.parametrize("family", SETTINGS)
def test_the_closed_form_is_what_transformers_computes(
    family: str, make_family: Callable[[str], Path], tmp_path: Path
) -> None:
    path = make_family(family)
    modules = {f"model.layers.{block}.mlp": 64 for block in range(2)}
    probe = make_probe(tmp_path / "bundle", EngineSettings(model=path), modules, fingerprint(path))
    with torch.inference_mode(), hooked(load(path), probe.bundle) as model:
        logprobs = torch.log_softmax(model(torch.tensor([[3, 4, 5]])).logits[0, -1].double(), 0).topk(5)
    compare(probe, dict(zip(logprobs.indices.tolist(), logprobs.values.tolist(), strict=True)))


@pytest.mark.engine
@pytest.mark.parametrize("family", ["Mistral", "Qwen3", "Gemma"])
def test_an_engine_answers_as_transformers_does(
    family: str, make_family: Callable[[str], Path], make_bundle: Any, tmp_path: Path
) -> None:
    from eul_serve.engine.vllm_engine import VllmEngine

    path = make_family(family)
    bundle = place(make_bundle(tmp_path / "bundle", path, seed=1, rank=4, scale=1.0), tmp_path / "cache")
    kinds = {"bundle": bundle, "base": None}
    expected = greedy_answers(path, kinds, tokens=TOKENS, lengths=(5, 40), count=3)
    settings = EngineSettings(
        model=path, max_context=128, slots=1, capacity=2, max_rank=8, deny_base=False, kv_cache_gib=0.02, max_batch=8
    )

    async def ask() -> None:
        engine = await VllmEngine.start(settings)
        try:
            await engine.load(bundle)
            for name, answers in expected.items():
                for prompt, wanted in answers:
                    found, _ = await answer(engine, work(kinds[name], prompt, max_tokens=TOKENS))
                    assert tuple(found) == wanted[: len(found)]
        finally:
            await engine.close()

    asyncio.run(ask())


@pytest.mark.engine
def test_experts_on_a_cpu_are_refused_in_words(make_family: Callable[[str], Path]) -> None:
    from eul_serve.engine.start import create_llm

    with pytest.raises(InputError, match="a mixture of experts; with adapters on, vLLM computes experts in Triton"):
        create_llm(EngineSettings(model=make_family("Qwen3Moe"), max_context=128, kv_cache_gib=0.02))
