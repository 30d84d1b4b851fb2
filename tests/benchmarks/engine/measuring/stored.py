"""Many bundles of one product engine: made once, loaded under ids of their own, asked in turns."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring.adapters import make_bundle

from eul_serve.engine.base import ResidentBundle, Sampling, Work
from eul_serve.engine.settings import EngineSettings
from eul_serve.format import read_bundle

FOLDERS = 4
"""Bundles on disk; more are the same files, read, hashed, checked and held again under an id of their own."""
_IDS, _WORKS = itertools.count(1), itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an engine is started with."""

    model: Path
    """Directory of the base model."""
    rank: int
    """Rank of every bundle."""
    slots: int
    """Bundles in one batch."""
    capacity: int
    """Bundles in host memory."""
    requests: int
    """Requests in flight."""
    dtype: str = "float32"
    """dtype of weights and activations."""


@asynccontextmanager
async def serving(shape: Shape, root: Path) -> AsyncIterator[Any]:
    """Run the engine that `eul serve` runs until the context ends."""
    from eul_serve.engine.vllm_engine import VllmEngine

    engine = await VllmEngine.start(
        EngineSettings(
            model=shape.model.absolute(), dtype=shape.dtype, slots=shape.slots, capacity=shape.capacity,
            max_rank=shape.rank, max_context=512, max_batch=shape.requests, bundles=root, kv_cache_gib=1.0,
        )
    )  # fmt: skip
    try:
        yield engine
    finally:
        await engine.close()


def place(root: Path, shape: Shape) -> list[Path]:
    """Write bundles to where their digests belong and return their directories."""
    found = []
    for seed in range(FOLDERS):
        made = make_bundle(root / f"made{seed}", shape.model, shape.rank, seed)
        target = root / "sha256" / read_bundle(made).revision.removeprefix("sha256:")
        target.parent.mkdir(exist_ok=True)
        found.append(made.rename(target))
    return found


def fresh(path: Path, rank: int) -> ResidentBundle:
    """Return a bundle under a new id."""
    return ResidentBundle(revision=f"sha256:{path.name}", id=next(_IDS), path=path, rank=rank)


async def ask(engine: Any, bundle: ResidentBundle, tokens: int, prompt: int = 8) -> float:
    """Run one request and return the seconds to its first token."""
    generator = random.Random(next(_WORKS))
    ids = tuple(generator.randrange(5, 500) for _ in range(prompt))
    work = Work(id=f"w{next(_WORKS)}", token_ids=ids, bundle=bundle, salt="s", sampling=Sampling(max_tokens=tokens))
    begin, first = time.perf_counter(), None
    async for _ in engine.generate(work):
        first = first or time.perf_counter() - begin
    assert first is not None
    return first


async def throughput(engine: Any, chosen: Sequence[ResidentBundle], tokens: int) -> float:
    """Run one request for each entry, all at once, and return answered tokens per second."""
    begin = time.perf_counter()
    await asyncio.gather(*(ask(engine, bundle, tokens) for bundle in chosen))
    return len(chosen) * tokens / (time.perf_counter() - begin)


def hollow_model(path: Path, tokenizer: Path, blocks: int = 32, width: int = 4096) -> Path:
    """Write a model with the blocks and width of one of eight billion parameters, and little between."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=width, intermediate_size=64, num_hidden_layers=blocks, num_attention_heads=1,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(path)
    written = json.loads((path / "config.json").read_text())
    assert written["hidden_size"] == width
    return path
