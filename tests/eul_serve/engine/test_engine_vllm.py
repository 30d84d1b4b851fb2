"""The real engine: mixed batches, more bundles than slots, prefix cache, refusals, and what happens at the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from eul_serve.engine.base import ResidentBundle
from eul_serve.errors import (
    BundleFormatError,
    BundleMismatchError,
    CapacityError,
    EngineError,
    InputError,
    RefusedError,
)

from .composites import compose, random_lora
from .conftest import answer, metric, place, work

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

# Differences between batches of different shape in float32; the tiny model's logits are of order 10.
TOLERANCE = 1e-4
NewBundle = Callable[..., ResidentBundle]


def assert_same(found: tuple[list[int], list[float]], expected: tuple[list[int], list[float]]) -> None:
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], abs=TOLERANCE)


async def test_it_says_what_it_proved_and_leaves_the_probe_out(engine: Any, tiny_model: Path) -> None:
    assert engine.info.model == str(tiny_model)
    assert (engine.info.slots, engine.info.capacity, engine.info.max_rank) == (2, 4, 16)
    assert await engine.resident() == frozenset()
    await engine.check()


async def test_a_mixed_batch_gives_what_each_request_gives_alone(engine: Any, new_bundle: NewBundle) -> None:
    first, second = new_bundle(1), new_bundle(2, rank=13, activation="silu", hidden_bias=False)
    for bundle in (first, second):
        await engine.load(bundle)
    assert await engine.resident() == {first.id, second.id}
    jobs = (first, None, second, first, None)
    alone = [await answer(engine, work(bundle, salt=f"alone{n}")) for n, bundle in enumerate(jobs)]
    mixed = await asyncio.gather(*(answer(engine, work(bundle, salt=f"mixed{n}")) for n, bundle in enumerate(jobs)))
    for found, expected in zip(mixed, alone, strict=True):
        assert_same(found, expected)
    assert len({tuple(tokens) for tokens, _ in alone}) == 3  # base and two bundles differ
    for bundle in (first, second):
        await engine.unload(bundle)
        await engine.unload(bundle)  # nothing happens where it is not loaded
    assert await engine.resident() == frozenset()
    with pytest.raises(EngineError, match="not resident; load it before use"):
        await answer(engine, work(first))


async def test_more_bundles_than_slots_stay_resident_and_right(engine: Any, new_bundle: NewBundle) -> None:
    bundles = [new_bundle(seed) for seed in range(10, 14)]
    for bundle in bundles:
        await engine.load(bundle)
    with pytest.raises(CapacityError, match="all 4 places in host memory are taken"):
        await engine.load(new_bundle(14))
    alone = [await answer(engine, work(bundle)) for bundle in bundles]
    together = await asyncio.gather(*(answer(engine, work(bundle)) for bundle in bundles * 2))
    for found, expected in zip(together, alone * 2, strict=True):
        assert_same(found, expected)
    assert await engine.resident() == {bundle.id for bundle in bundles}
    for bundle in bundles:
        await engine.unload(bundle)


async def test_a_load_says_where_its_time_went_and_takes_turns_with_decoding(
    engine: Any, new_bundle: NewBundle
) -> None:
    first, second, third = (new_bundle(seed) for seed in (15, 16, 17))
    await engine.load(first)
    running = asyncio.create_task(answer(engine, work(first, max_tokens=200)))
    stages = await engine.load(second)
    assert set(stages) == {"verify", "cast", "slot"}
    assert all(seconds > 0 for seconds in stages.values())
    await engine.load(third)
    # Three bundles, two slots: the third waits for its turn and gets it.
    found = await asyncio.gather(*(answer(engine, work(bundle)) for bundle in (second, third)))
    assert all(tokens for tokens, _ in found)
    assert engine._admission.turns.waiting == 0
    await running
    for bundle in (first, second, third):
        await engine.unload(bundle)


async def test_no_bundle_sees_cache_blocks_of_another(engine: Any, new_bundle: NewBundle) -> None:
    long = tuple(100 + n % 300 for n in range(400))  # more than three blocks of 128 tokens
    first, second = new_bundle(21), new_bundle(22)
    for bundle in (first, second):
        await engine.load(bundle)
    kinds = (None, first, second)
    cold = [await answer(engine, work(kind, long, salt=f"cold{n}")) for n, kind in enumerate(kinds)]
    hits = metric("vllm:prefix_cache_hits_total")
    # The same salt for all, as if the server's own isolation had failed; then once more, from the warm cache.
    for kind, expected in zip(kinds, cold, strict=True):
        assert await answer(engine, work(kind, long, salt="same")) == expected  # nothing taken over: bit for bit
    assert metric("vllm:prefix_cache_hits_total") == hits
    for kind, expected in zip(kinds, cold, strict=True):
        assert_same(await answer(engine, work(kind, long, salt="same")), expected)
    assert metric("vllm:prefix_cache_hits_total") - hits >= 3 * 3 * 128
    # The same revision under a new id, behind all that the base and every bundle left in the cache.
    again = replace(first, id=10_000 + first.id)
    await engine.load(again)
    assert await answer(engine, work(again, long, salt="same")) == cold[1]
    for bundle in (first, second, again):
        await engine.unload(bundle)


async def test_vllm_s_metrics_are_in_the_default_registry(engine: Any) -> None:
    assert engine.info.dtype == "float32"
    page = prometheus_client.generate_latest().decode()
    assert "vllm:num_requests_running" in page
    assert str(Path(engine.info.model).parent) not in page  # no path of this machine


async def test_a_score_is_the_sum_of_the_tokens_log_probabilities(engine: Any, new_bundle: NewBundle) -> None:
    bundle = new_bundle(31)
    await engine.load(bundle)
    for kind in (None, bundle):
        tokens, logprobs = await answer(engine, work(kind))
        whole, first, other = await engine.score(work(kind), [tuple(tokens), (tokens[0],), (3, 4)])
        assert whole == pytest.approx(sum(logprobs), abs=1e-3)
        assert first == pytest.approx(logprobs[0], abs=1e-3)
        assert other < 0
    with pytest.raises(InputError, match="expected at least one token"):
        await engine.score(work(bundle), [()])
    with pytest.raises(InputError, match="found 521; shorten the prompt"):
        await engine.score(work(bundle), [(5,), tuple([5] * 501)])
    await engine.unload(bundle)


async def test_pieces_end_with_a_reason_and_stop_texts_end_an_answer(engine: Any) -> None:
    pieces = [piece async for piece in engine.generate(work(None, max_tokens=4, logprobs=False))]
    assert [piece.finish_reason for piece in pieces][-1] == "length"
    assert sum(len(piece.token_ids) for piece in pieces) == 4
    assert all(piece.logprobs == () for piece in pieces)
    text = "".join(piece.text for piece in [p async for p in engine.generate(work(None, max_tokens=30))])
    pieces = [piece async for piece in engine.generate(work(None, max_tokens=30, stop=(text[8:12],)))]
    assert pieces[-1].finish_reason == "stop"
    assert "".join(piece.text for piece in pieces) == text[: text.index(text[8:12])]


async def test_the_answer_ends_where_the_context_does(engine: Any) -> None:
    tokens, _ = await answer(engine, work(None, tuple([20] * 505), max_tokens=100))
    assert len(tokens) <= 7  # a context of 512
    with pytest.raises(InputError, match=r"expected at most 511 tokens .* found 512"):
        await answer(engine, work(None, tuple([20] * 512)))


async def test_sampling_with_a_seed_repeats(engine: Any) -> None:
    settings = {"temperature": 1.5, "top_p": 0.95, "top_k": 50, "max_tokens": 12}
    runs = [await answer(engine, work(None, seed=seed, **settings)) for seed in (1, 1, 2)]
    assert runs[0][0] == runs[1][0] != runs[2][0]


async def test_closing_the_iterator_stops_the_work(engine: Any) -> None:
    pieces = engine.generate(work(None, max_tokens=400))
    async for _ in pieces:
        break
    await pieces.aclose()
    for _ in range(100):
        if engine._llm.live.get_num_unfinished_requests() == 0:
            break
        await asyncio.sleep(0.05)
    assert engine._llm.live.get_num_unfinished_requests() == 0
    await answer(engine, work(None))


async def test_bundles_that_are_refused_disturb_nothing(
    engine: Any, new_bundle: NewBundle, tmp_path: Path, make_bundle: Any, tiny_model: Path
) -> None:
    good = new_bundle(41)
    await engine.load(good)
    expected = await answer(engine, work(good))
    fresh = itertools.count(900)
    with pytest.raises(EngineError, match="ids are never used again"):
        await engine.load(good)
    with pytest.raises(CapacityError, match="rank: expected at most 16, found 17"):
        await engine.load(new_bundle(42, rank=17))
    with pytest.raises(InputError, match="expected its digest in the path"):
        await engine.load(replace(good, id=next(fresh), revision="sha256:" + "0" * 64))
    outside = tmp_path / good.revision.removeprefix("sha256:")
    with pytest.raises(InputError, match="expected a directory in the verified cache"):
        await engine.load(replace(good, id=next(fresh), path=outside))
    link = good.path.parent / "link"
    link.symlink_to(good.path.parent)
    with pytest.raises(InputError, match="expected a path without links"):
        await engine.load(replace(good, id=next(fresh), path=link / good.path.name))
    with pytest.raises(BundleFormatError, match=r"expected sha256:.*, found sha256"):
        await engine.load(replace(good, id=next(fresh), rank=3))
    changed = new_bundle(43)
    data = bytearray((changed.path / "adapter_model.safetensors").read_bytes())
    data[-1] ^= 1
    (changed.path / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(BundleFormatError, match="the file was changed"):
        await engine.load(changed)
    parts = make_bundle(tmp_path / "parts", tiny_model), random_lora(tmp_path / "lora", 0)
    with pytest.raises(InputError, match="start the server with --fine-tunes"):
        await engine.load(place(compose(tmp_path / "composite", *parts), good.path.parent.parent))
    assert await engine.resident() == {good.id}
    assert_same(await answer(engine, work(good)), expected)
    await engine.unload(good)


async def test_a_bundle_of_another_model_is_refused(
    engine: Any, tmp_path: Path, tiny_model: Path, make_bundle: Any, engine_cache: Path
) -> None:
    model = tmp_path / "other"
    model.mkdir()
    for file in tiny_model.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    config = (model / "config.json").read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')
    (model / "config.json").write_text(config)
    made = make_bundle(tmp_path / "b", model)
    path = engine_cache / made.revision.removeprefix("sha256:")
    made.path.rename(path)
    with pytest.raises(BundleMismatchError, match="made for base model"):
        await engine.load(ResidentBundle(revision=made.revision, id=990, path=path, rank=4))


async def test_a_worker_itself_checks_what_it_loads(engine: Any, new_bundle: NewBundle, tmp_path: Path) -> None:
    """Past the front end's own checks, as a stock server would."""
    from eul_serve.engine.compat import LoRARequest

    bundle = new_bundle(51)
    weights = bundle.path / "adapter_model.safetensors"
    outside = tmp_path / "outside"
    outside.mkdir()
    for path, message in (
        (str(outside), "verified cache"),
        ("relative", "absolute path"),
        (str(bundle.path), "changed"),
    ):
        if message == "changed":
            weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        with pytest.raises(Exception, match=message):
            await engine._llm.live.add_lora(LoRARequest(lora_name=path, lora_int_id=700, lora_path=path))
    assert await engine.resident() == frozenset()
    await engine.check()


async def test_where_the_base_is_denied_the_front_end_refuses_it(engine: Any) -> None:
    engine._admission.deny_base = True
    try:
        with pytest.raises(RefusedError, match="the base model is denied"):
            await answer(engine, work(None))
        with pytest.raises(RefusedError, match="the base model is denied"):
            await engine.score(work(None), [(1,)])
    finally:
        engine._admission.deny_base = False
