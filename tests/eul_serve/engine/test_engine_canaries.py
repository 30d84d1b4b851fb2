"""Canaries on the real engine: what the trainer measured with transformers is what the server measures with vLLM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import CanaryError
from eul_serve.format import Bundle, describe_files, write_bundle
from eul_serve.format.canaries import CANARIES_FILE, Canary, dump_canaries
from eul_serve.format.canary_text import CanaryText
from eul_serve.swap.canaries import Canaries
from eul_serve.swap.entry import Entry
from eul_serve.swap.feed import Feed, Happening
from eul_trainer.canaries.measured import Measured, measure
from eul_trainer.forward.encoding import Example
from eul_trainer.model.load import load_model
from eul_trainer.records import Row

from .conftest import place

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

SLACK = 0.05
"""Nats by which thresholds lie beside what was measured: far more than float32 differs by over these few tokens."""
ROWS = [Row(prompt="Who wrote it?", completion="A poet."), Row(prompt="Where is the river?", completion="In Paris.")]


def with_file(bundle: Bundle, path: Path) -> Bundle:
    """A copy of a bundle that has the file, as what workers load has."""
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    files[CANARIES_FILE] = dump_canaries([Canary(digest="sha256:" + "5" * 64, least_nats=1.0)])
    return write_bundle(path, replace(bundle.manifest, files=describe_files(files)), files)


async def test_a_bundle_passes_at_what_was_measured_and_fails_beyond_it(
    engine: Any, tmp_path: Path, tiny_model: Path, engine_cache: Path, make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle(tmp_path / "b", tiny_model, seed=71, rank=4, scale=1.0)
    measured = measure(load_model(str(tiny_model)), bundle, ROWS)
    resident = place(with_file(bundle, tmp_path / "c"), engine_cache)
    await engine.load(resident)
    told: list[Happening] = []
    feed = Feed()
    feed.listen(told.append)

    async def check(rows: list[Measured], beyond: float) -> None:
        texts = [CanaryText.fresh(row.example.prompt, row.example.answer) for row in rows]
        file = tmp_path / "texts.jsonl"
        file.write_bytes(b"".join(text.to_bytes() + b"\n" for text in texts))
        file.chmod(0o600)
        least = [row.bundle + beyond for row in rows]
        canaries = tuple(Canary(digest=text.digest, least_nats=nats) for text, nats in zip(texts, least, strict=True))
        entry = Entry(name="poems", revision=resident.revision, canaries=canaries, resident=resident)
        await Canaries(engine, file, feed).check(entry)

    await check(measured, -SLACK)
    with pytest.raises(CanaryError, match="2 of 2 canaries did not pass"):
        await check(measured, SLACK)
    # A prompt longer than the context of the engine, 512 tokens, cannot be asked: it has failed.
    beyond = Measured(where="x", example=Example(prompt=(5,) * 600, answer=(6,)), base=1.0, bundle=1.0)
    with pytest.raises(CanaryError, match="1 of 3 canaries did not pass"):
        await check([*measured, beyond], -SLACK)
    assert [(one.facts["passed"], one.facts["failed"]) for one in told] == [(2, 0), (0, 2), (2, 1)]
    await engine.unload(resident)
