"""A tenant's fine-tune with its forget bundle in one request, beside bundles and the base in the same batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch

from eul_serve.engine.base import ResidentBundle
from eul_serve.engine.settings import EngineSettings
from eul_serve.errors import BundleFormatError, RefusedError
from eul_serve.format import Bundle
from eul_trainer.compose.fine_tune import FineTune

from .composites import compose, random_lora
from .conftest import PROMPT, answer, place, work
from .reference import hooked, load

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

TOLERANCE = 1e-4
"""On log-probabilities in float32, as for bundles."""


@dataclass(frozen=True)
class Parts:
    """What a composite was made of."""

    bundle: Bundle | ResidentBundle | None
    fine_tune: FineTune | None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("composite")


@pytest.fixture(scope="module")
def make(
    root: Path, tiny_model: Path, make_bundle: Callable[..., Bundle]
) -> Callable[..., tuple[ResidentBundle, Parts]]:
    """Factory of composites, each with a bundle and a fine-tune of its own."""

    def made(seed: int, *, passed: bool = True) -> tuple[ResidentBundle, Parts]:
        bundle = make_bundle(root / f"bundle{seed}", tiny_model, seed=seed, rank=4, scale=1.0)
        fine_tune = random_lora(root / f"lora{seed}", seed)
        composite = compose(root / f"out{seed}", bundle, fine_tune, passed=passed)
        return place(composite, root / "cache"), Parts(bundle, fine_tune)

    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path, root: Path) -> AsyncIterator[Any]:
    from eul_serve.engine.vllm_engine import VllmEngine

    engine = await VllmEngine.start(
        EngineSettings(
            model=tiny_model, max_context=256, slots=2, capacity=6, max_rank=8, deny_base=False, kv_cache_gib=0.1,
            fine_tunes=True, bundles=root / "cache", turn_seconds=0.05,
        )
    )  # fmt: skip
    yield engine
    await engine.close()


@torch.inference_mode()
def expected(model: Path, parts: Parts, tokens: list[int]) -> list[float]:
    """Log-probabilities of an answer by transformers, with the fine-tune in its weights and the layers behind."""
    network = load(model)
    if parts.fine_tune is not None:
        parts.fine_tune.add_to(parts.fine_tune.find(network))
    with hooked(network, parts.bundle):
        logits = network(torch.tensor([[*PROMPT, *tokens]])).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    return logits[torch.arange(len(tokens)), torch.tensor(tokens)].tolist()


async def test_composites_bundles_and_the_base_share_a_batch(
    engine: Any, make: Callable[..., Any], root: Path, tiny_model: Path, make_bundle: Callable[..., Bundle]
) -> None:
    """Six at once over two slots; each answer has its own parts' log-probabilities, and all six differ."""
    kinds: list[tuple[ResidentBundle | None, Parts]] = [(None, Parts(None, None)), *(make(seed) for seed in (1, 2, 3))]
    for seed in (11, 12):  # and bundles by themselves
        alone = place(make_bundle(root / f"bundle{seed}", tiny_model, seed=seed, rank=4, scale=1.0), root / "cache")
        kinds.append((alone, Parts(alone, None)))
    for resident, _ in kinds[1:]:
        await engine.load(resident)
    answers = await asyncio.gather(*(answer(engine, work(resident)) for resident, _ in kinds))
    for (_, parts), (tokens, logprobs) in zip(kinds, answers, strict=True):
        assert logprobs == pytest.approx(expected(tiny_model, parts, tokens), abs=TOLERANCE)
    assert len({logprobs[0] for _, logprobs in answers}) == len(kinds)
    for resident, _ in kinds[1:]:
        await engine.unload(resident)


async def test_a_composite_that_moved_to_another_slot_keeps_its_fine_tune(
    engine: Any, make: Callable[..., Any], tiny_model: Path
) -> None:
    """Two loads with no step between take its slot; it comes back into the other one, for the same batch as before."""
    (first, parts), (second, _), (third, _) = make(4), make(5), make(6)
    await engine.load(first)
    before = await answer(engine, work(first, salt="before"))
    await engine.load(second)
    await engine.load(third)
    after = await answer(engine, work(first, salt="after"))
    assert after == before
    assert after[1] == pytest.approx(expected(tiny_model, parts, after[0]), abs=TOLERANCE)
    for resident in (first, second, third):
        await engine.unload(resident)


async def test_one_that_has_not_passed_is_refused(engine: Any, make: Callable[..., Any]) -> None:
    composite, _ = make(7, passed=False)
    with pytest.raises(RefusedError, match="not passed its evaluation"):
        await engine.load(composite)
    assert composite.id not in await engine.resident()


async def test_a_fine_tune_of_a_higher_rank_is_refused_and_the_engine_goes_on(
    engine: Any, make: Callable[..., Any], root: Path, tiny_model: Path, make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle(root / "bundle8", tiny_model, seed=8, rank=4, scale=1.0)
    wide = place(compose(root / "out8", bundle, random_lora(root / "lora8", 8, rank=16)), root / "cache")
    with pytest.raises(BundleFormatError, match="16"):
        await engine.load(wide)
    good, parts = make(9)
    await engine.load(good)
    tokens, logprobs = await answer(engine, work(good))
    assert logprobs == pytest.approx(expected(tiny_model, parts, tokens), abs=TOLERANCE)
    await engine.unload(good)
