"""Acceptance: vLLM, PEFT and the trainer's layer give the same on the real model, in one mixed batch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.engine.base import ChatMessage, ResidentBundle, Sampling, Work
from eul_serve.engine.settings import EngineSettings
from eul_serve.format import Bundle, BundleConfig, ForgottenRequest, Manifest, describe_files, read_base, write_bundle
from eul_serve.format.digest import digest_bytes
from eul_serve.format.weights import LayerWeights, dump_layers, load_layers

pytestmark = pytest.mark.engine

TOKENS = 32
TOLERANCE = 1e-3  # nats, in float32: acceptance 3 of the first issue
QUESTIONS = ("Who wrote Hamlet?", "What is the capital of France?", "Name three planets.", "Why is the sky blue?")


@dataclass(frozen=True)
class Answer:
    """A prompt and what vLLM made of it."""

    prompt: tuple[int, ...]
    tokens: list[int]
    logprobs: list[float]
    text: str


def fuse(path: Path, model: Path, first: Bundle, second: Bundle) -> Bundle:
    """Write the exact sum of two bundles: their units side by side."""
    layers, others = load_layers(first), load_layers(second)
    fused = {}
    for module, layer in layers.items():
        other = others[module]
        assert layer.bias is not None
        assert other.bias is not None
        fused[module] = LayerWeights(
            torch.cat([layer.down, other.down]),
            torch.cat([layer.up, other.up], dim=1),
            torch.cat([layer.bias, other.bias]),
        )
    base, rank = read_base(model), first.config.rank + second.config.rank
    files = {
        "adapter_config.json": BundleConfig(rank=rank, base_fingerprint=base.fingerprint).to_bytes(),
        "adapter_model.safetensors": dump_layers(fused),
        "README.md": b"The sum of two random bundles.\n",
    }
    requests = tuple(ForgottenRequest(id=id, data=digest_bytes(id.encode()), units=None) for id in ("r1", "r2"))
    return write_bundle(path, Manifest(base=base, requests=requests, files=describe_files(files)), files)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, base_model: Path, make_bundle: Any) -> dict[str, Bundle]:
    root = tmp_path_factory.mktemp("parity")
    # 0.05: large enough to change the greedy text, small enough to leave the logits far from saturation.
    first = make_bundle(root / "first", base_model, rank=16, seed=1, scale=0.05)
    second = make_bundle(root / "second", base_model, rank=9, seed=2, scale=0.05)
    return {"first": first, "second": second, "fused": fuse(root / "fused", base_model, first, second)}


@pytest.fixture(scope="module")
def answers(base_model: Path, bundles: dict[str, Bundle]) -> dict[str, Answer]:
    """Answers of one engine, all requests in one batch, in a loop of their own, so that vLLM's memory is free again."""
    return asyncio.run(answer_all(base_model, bundles))


async def answer_all(model: Path, bundles: dict[str, Bundle]) -> dict[str, Answer]:
    from eul_serve.engine.vllm_engine import VllmEngine

    settings = EngineSettings(model=model, max_context=256, slots=3, max_rank=32, deny_base=False, kv_cache_gib=0.5)
    engine = await VllmEngine.start(settings)
    try:
        resident: dict[str, ResidentBundle | None] = {"base": None}
        for number, (name, bundle) in enumerate(bundles.items(), start=1):
            digest = bundle.revision.removeprefix("sha256:")
            path = bundle.path.rename(bundle.path.with_name(digest))
            resident[name] = ResidentBundle(revision=bundle.revision, id=number, path=path, rank=bundle.config.rank)
            bundles[name] = Bundle(path=path, config=bundle.config, manifest=bundle.manifest, widths=bundle.widths)
            await engine.load(resident[name])
        found = await asyncio.gather(
            *(ask(engine, name, resident[name], question) for name, question in zip(resident, QUESTIONS, strict=True))
        )
        return dict(found)
    finally:
        await engine.close()


async def ask(engine: Any, name: str, bundle: ResidentBundle | None, question: str) -> tuple[str, Answer]:
    prompt = engine.encode((ChatMessage(role="user", content=question),))
    sampling = Sampling(max_tokens=TOKENS, logprobs=True)
    pieces = [
        piece
        async for piece in engine.generate(Work(id=name, token_ids=prompt, bundle=bundle, salt=name, sampling=sampling))
    ]
    return name, Answer(
        prompt,
        [token for piece in pieces for token in piece.token_ids],
        [value for piece in pieces for value in piece.logprobs],
        "".join(piece.text for piece in pieces),
    )


def peft_model(model: Path, bundle: Bundle | None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import eul_serve.peft

    assert eul_serve.peft  # registers the method
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    return base if bundle is None else PeftModel.from_pretrained(base, str(bundle.path)).eval()


def logprobs_of(model: Any, answer: Answer) -> torch.Tensor:
    """Return the log-probabilities (tokens, vocabulary) that a model gives where the answer's tokens stand."""
    ids = torch.tensor([[*answer.prompt, *answer.tokens]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(answer.prompt) - 1 : -1]
    return torch.log_softmax(logits.double(), dim=1)


@pytest.mark.parametrize("name", ["base", "first", "second", "fused"])
def test_greedy_tokens_and_log_probabilities_equal_those_of_peft(
    answers: dict[str, Answer],
    bundles: dict[str, Bundle],
    base_model: Path,
    name: str,
) -> None:
    answer = answers[name]
    expected = logprobs_of(peft_model(base_model, bundles.get(name)), answer)
    # The most likely token at every position, given the same tokens before, is the greedy text itself.
    assert expected.argmax(dim=1).tolist() == answer.tokens
    chosen = expected[range(len(answer.tokens)), answer.tokens]
    worst = float((chosen - torch.tensor(answer.logprobs, dtype=torch.float64)).abs().max())
    assert worst < TOLERANCE
    assert len(answer.tokens) == TOKENS or answer.tokens[-1] == 2  # SmolLM2's end of turn


@pytest.mark.parametrize("name", ["first", "second", "fused"])
def test_the_bundles_change_what_is_said(
    answers: dict[str, Answer], bundles: dict[str, Bundle], base_model: Path, name: str
) -> None:
    answer = answers[name]
    base = logprobs_of(peft_model(base_model, None), answer)
    assert base.argmax(dim=1).tolist() != answer.tokens


def test_the_trainer_s_layers_give_what_peft_gives(
    answers: dict[str, Answer], bundles: dict[str, Bundle], base_model: Path
) -> None:
    from eul_trainer.model.adapter import BundleStack
    from eul_trainer.model.load import load_model

    model = load_model(str(base_model))
    stack = BundleStack(model, list(bundles.items()))
    for name in ("first", "fused"):
        expected = logprobs_of(peft_model(base_model, bundles[name]), answers[name])
        with stack.on(name):
            found = logprobs_of(model.network, answers[name])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
