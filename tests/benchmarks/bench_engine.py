"""Compare the base model, unlearning layers and plain LoRA in vLLM, in one run: decode speed, as ratios to the base.

    python tests/benchmarks/bench_engine.py MODEL [--rank 16] [--requests 16] [--tokens 64] [--repeats 5]

One engine with vLLM's own LoRA layers beside ours serves all rows, and one without them serves base and bundles again,
as `eul serve` does. The order of rows is shuffled in every repeat, so that a busy machine slows all of them alike.
Prints JSON: per row the median tokens per second, its spread (least and most), and the ratio to the base row.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from eul_serve.engine.compat import LoRARequest, SamplingParams, final_outputs, make_prompt, stop_llm
from eul_serve.engine.settings import EngineSettings, WorkerSettings
from eul_serve.engine.start import vllm_arguments

ROOT = Path(__file__).resolve().parents[2]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def make_adapters(root: Path, model: Path, rank: int) -> dict[str, list[LoRARequest]]:
    """Write four bundles and four plain LoRA adapters on down_proj, and return the adapters of every row."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    spec = importlib.util.spec_from_file_location("shared", ROOT / "tests" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    shared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shared)
    bundles, loras = [], []
    for number in range(1, 5):
        shared.random_bundle(root / f"eul{number}", model, rank=rank, seed=number, scale=0.01)
        bundles.append(LoRARequest(f"eul{number}", number, str(root / f"eul{number}")))
        config = LoraConfig(r=rank, target_modules=["down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(root / f"lora{number}")
        loras.append(LoRARequest(f"lora{number}", 10 + number, str(root / f"lora{number}")))
    return {"base": [], "eul x1": bundles[:1], "eul x4": bundles, "lora x1": loras[:1], "lora x4": loras}


async def speed(llm: Any, adapters: list[LoRARequest], requests: int, tokens: int, run: str) -> float:
    """Return tokens per second of a batch whose requests go round the adapters."""

    async def one(number: int) -> None:
        adapter = adapters[number % len(adapters)] if adapters else None
        params = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0.0, output_kind=final_outputs())
        prompt = make_prompt([100 + number, *range(200, 210)], run)
        async for _ in llm.generate(prompt, params, f"{run}-{number}", lora_request=adapter):
            pass

    begin = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(requests)))
    return requests * tokens / (time.perf_counter() - begin)


async def measure(
    chosen: argparse.Namespace, rows: dict[str, list[LoRARequest]], *, plain_lora: bool
) -> dict[str, Any]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    settings = EngineSettings(model=chosen.model.absolute(), slots=4, max_rank=chosen.rank, max_context=512)
    arguments = vllm_arguments(settings)
    arguments["additional_config"] = WorkerSettings(plain_lora=plain_lora).to_config()
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    found: dict[str, list[float]] = {name: [] for name in rows}
    try:
        for repeat in range(chosen.repeats + 1):
            for name in random.sample(sorted(rows), len(rows)):
                result = await speed(llm, rows[name], chosen.requests, chosen.tokens, f"{name}{repeat}")
                if repeat:  # the first round loads adapters and warms up
                    found[name].append(result)
    finally:
        stop_llm(llm, 30.0)
    base = statistics.median(found["base"])
    return {
        name: {
            "median": round(statistics.median(values), 1),
            "least": round(min(values), 1),
            "most": round(max(values), 1),
            "ratio": round(statistics.median(values) / base, 3),
        }
        for name, values in found.items()
    }


async def main() -> None:
    chosen = options()
    with tempfile.TemporaryDirectory() as name:
        rows = make_adapters(Path(name).resolve(), chosen.model, chosen.rank)
        ours = {key: value for key, value in rows.items() if not key.startswith("lora")}
        result = {
            "eul serve": await measure(chosen, ours, plain_lora=False),
            "stock vLLM": await measure(chosen, rows, plain_lora=True),
        }
    sys.stdout.write(json.dumps({"rank": chosen.rank, "requests": chosen.requests, **result}, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
