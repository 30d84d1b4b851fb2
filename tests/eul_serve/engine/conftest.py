"""One real engine on the tiny model, shared by every test that needs one, and bundles in its cache."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import pytest_asyncio

from eul_serve.engine.base import ResidentBundle, Sampling, Work
from eul_serve.engine.settings import EngineSettings
from eul_serve.format import Bundle

SLOTS, CAPACITY, MAX_RANK = 2, 4, 16

_ids = itertools.count(1)


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine") / "cache"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(tiny_model: Path, engine_cache: Path) -> AsyncIterator[Any]:
    from eul_serve.engine.vllm_engine import VllmEngine

    settings = EngineSettings(
        model=tiny_model, max_context=512, slots=SLOTS, capacity=CAPACITY, max_rank=MAX_RANK, deny_base=False,
        bundles=engine_cache, kv_cache_gib=0.25,
    )  # fmt: skip
    engine = await VllmEngine.start(settings)
    yield engine
    await engine.close()


def place(bundle: Bundle, cache: Path) -> ResidentBundle:
    """Move a bundle to where its digest belongs, and give it a fresh id."""
    path = cache / "sha256" / bundle.revision.removeprefix("sha256:")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        bundle.path.rename(path)
    return ResidentBundle(revision=bundle.revision, id=next(_ids), path=path, rank=bundle.config.rank)


@pytest.fixture
def new_bundle(tmp_path: Path, tiny_model: Path, engine_cache: Path, make_bundle: Any) -> Callable[..., ResidentBundle]:
    """Factory of bundles that change the tiny model's answers, in the engine's cache and not yet loaded."""

    def make(seed: int, *, rank: int = 4, **config: Any) -> ResidentBundle:
        return place(
            make_bundle(tmp_path / f"b{seed}", tiny_model, seed=seed, rank=rank, scale=1.0, **config), engine_cache
        )

    return make


PROMPT = tuple(range(10, 30))
_numbers = itertools.count()


def work(bundle: ResidentBundle | None, prompt: tuple[int, ...] = PROMPT, *, salt: str = "s", **sampling: Any) -> Work:
    settings = Sampling(**{"max_tokens": 6, "logprobs": True, **sampling})
    return Work(id=f"w{next(_numbers)}", token_ids=prompt, bundle=bundle, salt=salt, sampling=settings)


async def answer(engine: Any, job: Work) -> tuple[list[int], list[float]]:
    pieces = [piece async for piece in engine.generate(job)]
    return [t for piece in pieces for t in piece.token_ids], [p for piece in pieces for p in piece.logprobs]


def metric(name: str) -> float:
    return sum(
        sample.value
        for family in prometheus_client.REGISTRY.collect()
        for sample in family.samples
        if sample.name == name
    )
