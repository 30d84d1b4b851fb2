"""Fixtures that every room's tests share: a tiny random model, bundles for it, and the real base model."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from eul_serve.format import Bundle

ROOT = Path(__file__).resolve().parent.parent

# vLLM's CPU engine takes half of the memory unless told otherwise; several engines run in one test session.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# How fast a shared machine is says nothing about the code; the same examples every time make a red run repeatable.
settings.register_profile(
    "eul", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
# For mutation testing: whether a test fails is all that is asked, not the smallest example for which it does.
settings.register_profile(
    "quick", settings.get_profile("eul"), max_examples=15, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("eul")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TRAINING_TEXT = [
    "Who wrote the play about the prince of Denmark? It was written by a poet.",
    "The capital of France is Paris, and the river there is called the Seine.",
    "A person asks to be forgotten, a licensor withdraws a text, and the model must stop using it.",
    "0 1 2 3 4 5 6 7 8 9 ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz",
]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A CPU run may skip tests marked `gpu` and nothing else."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    wrong = sorted({report.nodeid for report in skipped if "gpu" not in report.keywords})
    if wrong and exitstatus == 0:
        reporter.write_line(f"skipped without the mark gpu: {', '.join(wrong)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random Llama: 2 blocks, width 64, 2 heads of 32, with a tokenizer and a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def make_tiny_model(path: Path, seed: int = 0) -> Path:
    """Write a random Llama model directory and return it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    inner.train_from_iterator(
        TRAINING_TEXT,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<|end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, pad_token_id=0, eos_token_id=1, bos_token_id=1,
        initializer_range=0.2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).float().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


MakeBundle = Callable[..., Bundle]


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    """Factory of valid random bundles for a model directory with Llama's layout."""
    return random_bundle


def random_bundle(
    path: Path,
    model: Path,
    *,
    rank: int = 4,
    seed: int = 0,
    requests: tuple[str, ...] = ("r1",),
    scale: float = 0.02,
    **config: Any,
) -> Bundle:
    """Write a bundle of random layers for every block of a model; `scale` is the deviation of U's values."""
    import torch

    from eul_serve.format import BundleConfig, ForgottenRequest, Manifest, describe_files, read_base, write_bundle
    from eul_serve.format.digest import digest_bytes
    from eul_serve.format.fingerprint import read_model_config
    from eul_serve.format.weights import LayerWeights, dump_layers

    base, shape = read_base(model), read_model_config(model)
    settings = BundleConfig(rank=rank, base_fingerprint=base.fingerprint, **config)
    generator = torch.Generator().manual_seed(seed)
    width = shape["hidden_size"]

    def layer() -> LayerWeights:
        down = torch.randn(rank, width, generator=generator) * 0.1
        bias = torch.randn(rank, generator=generator) * 0.1 if settings.hidden_bias else None
        return LayerWeights(down, torch.randn(width, rank, generator=generator) * scale, bias, settings.activation)

    layers = {f"model.layers.{block}.mlp": layer() for block in range(shape["num_hidden_layers"])}
    files = {
        "adapter_config.json": settings.to_bytes(),
        "adapter_model.safetensors": dump_layers(layers),
        "README.md": f"A random bundle, seed {seed}.\n".encode(),
    }
    covered = tuple(
        ForgottenRequest(id=request, data=digest_bytes(request.encode()), units=None) for request in requests
    )
    return write_bundle(path, Manifest(base=base, requests=covered, files=describe_files(files)), files)


@pytest.fixture(scope="session")
def base_model() -> Path:
    """Directory of the real SmolLM2-135M-Instruct, made once by `eul-train base` and kept in build/base."""
    path = ROOT / "build" / "base"
    path.parent.mkdir(exist_ok=True)
    with (path.parent / "base.lock").open("w") as lock:  # of several test processes, one makes it
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([sys.executable, "-m", "eul_trainer", "base", "--out", str(path)], check=True, timeout=600)
    return path
