"""vLLM's own OpenAI server with the package installed: a bundle and a plain LoRA adapter in one batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.engine

PROMPT = list(range(10, 40))
TOKENS = 8
# The server's log-probabilities pass through float32 and JSON; the batch's shape moves the last bits.
TOLERANCE = 1e-3
START_SECONDS = 400


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, make_bundle: Any) -> dict[str, Path]:
    """A bundle, and a plain LoRA adapter on the maps inside and outside the feed-forward module."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("stock")
    bundle = make_bundle(root / "bundle", tiny_model, seed=5, rank=6, scale=1.0)
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"],
        init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    get_peft_model(base, config).save_pretrained(root / "lora")
    return {"bundle": bundle.path, "lora": root / "lora"}


@pytest.fixture(scope="module")
def server(adapters: dict[str, Path], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_model),
        "--served-model-name", "base", "--dtype", "float32", "--max-model-len", "256", "--enforce-eager",
        "--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--shutdown-timeout", "20",
        "--lora-modules", *(f"{name}={path}" for name, path in adapters.items()),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("log") / "server.log"
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
    environment.pop("EUL_PLUGIN", None)
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, address, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")


def post(address: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.loads(response.read())


def complete(address: str, model: str) -> tuple[list[int], list[float]]:
    body = {
        "model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "logprobs": 0,
        "return_tokens_as_token_ids": True, "ignore_eos": True,
    }  # fmt: skip
    found = post(address, "/v1/completions", body)["choices"][0]["logprobs"]
    return [int(token.removeprefix("token_id:")) for token in found["tokens"]], found["token_logprobs"]


def expected(model: Path, adapter: Path | None, tokens: list[int]) -> tuple[list[int], list[float]]:
    """Return the most likely tokens and the given tokens' log-probabilities, as transformers and PEFT have them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import eul_serve.peft

    assert eul_serve.peft  # registers the method
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    if adapter is not None:
        network = PeftModel.from_pretrained(network, str(adapter)).eval()
    with torch.no_grad():
        logits = network(torch.tensor([PROMPT + tokens])).logits[0, len(PROMPT) - 1 : -1]
    logprobs = torch.log_softmax(logits.double(), dim=1)
    return logprobs.argmax(dim=1).tolist(), logprobs[range(len(tokens)), tokens].tolist()


def test_a_bundle_and_a_plain_adapter_answer_as_peft_does_in_one_batch(
    server: str, adapters: dict[str, Path], tiny_model: Path
) -> None:
    names = ["base", "bundle", "lora"]
    with ThreadPoolExecutor(9) as pool:
        found = list(pool.map(lambda name: complete(server, name), names * 3))
    for name, (tokens, logprobs) in zip(names * 3, found, strict=True):
        best, values = expected(tiny_model, adapters.get(name), tokens)
        assert tokens == best, name
        assert logprobs == pytest.approx(values, abs=TOLERANCE), name
    assert len({tuple(tokens) for tokens, _ in found[:3]}) == 3


def test_the_server_lists_the_bundle_as_a_model(server: str) -> None:
    with urllib.request.urlopen(f"{server}/v1/models", timeout=30) as response:
        listed = json.loads(response.read())["data"]
    assert {model["id"] for model in listed} == {"base", "bundle", "lora"}
