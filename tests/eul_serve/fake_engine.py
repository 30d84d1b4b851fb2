"""An engine without a model, behind the real interface: it counts, and notices what an engine must never see."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import product

from eul_serve.engine.base import ChatMessage, EngineInfo, Piece, Prompt, ResidentBundle, Work
from eul_serve.errors import BundleFormatError, CapacityError, EngineError, InputError


class FakeEngine:
    """Answers every prompt with the head of the revision's digest, one word for each token.

    What it is asked to score has 1 nat a token, or what `nats` says of a revision.
    """

    def __init__(
        self,
        fingerprint: str,
        *,
        capacity: int = 4,
        max_context: int = 64,
        step: float = 0.0,
        load_step: float = 0.0,
        batch: int = 64,
    ) -> None:
        self._info = EngineInfo(
            model="fake",
            fingerprint=fingerprint,
            max_context=max_context,
            max_rank=64,
            slots=capacity,
            capacity=capacity,
            batch=batch,
            dtype="float32",
        )
        self.step = step
        self.load_step = load_step
        self.loaded: dict[int, ResidentBundle] = {}
        self.pinned: set[int] = set()
        self.ids: list[int] = []
        self.running: Counter[int] = Counter()
        self.works: list[Work] = []
        self.probed: list[Work] = []
        self.aborted: list[str] = []
        self.violations: list[str] = []
        self.refused: set[str] = set()
        self.nats: dict[str, float] = {}
        self.broken: Exception | None = None
        self.closed = False
        self.finish = "length"

    @property
    def info(self) -> EngineInfo:
        return self._info

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return tuple(prompt.encode())
        parts = [part.content if isinstance(part, ChatMessage) else part for part in prompt]
        text = "".join(part for part in parts if isinstance(part, str))
        ids = tuple(part for part in parts if isinstance(part, int))
        if any(token >= 256 for token in ids):
            raise InputError(f"token id {max(ids)}: expected 0 to 255")
        return ids or tuple(text.encode())

    async def generate(self, work: Work) -> AsyncIterator[Piece]:
        self.works.append(work)
        if self.broken:
            raise self.broken
        head = work.bundle.revision[7:11] if work.bundle else "base"
        key = work.bundle.id if work.bundle else 0
        self.running[key] += 1
        last = work.sampling.max_tokens - 1
        try:
            for index, choice in product(range(work.sampling.max_tokens), range(work.sampling.answers)):
                self._check(work)
                asked = work.sampling.prompt_logprobs and not (index or choice)
                yield Piece(
                    text=f"{head} ",
                    token_ids=(index % 256,),
                    logprobs=(-0.5,) if work.sampling.logprobs else (),
                    finish_reason=self.finish if index == last else None,
                    choice=choice,
                    prompt_logprobs=(-1.0,) * (len(work.token_ids) - 1) if asked else (),
                )
                await asyncio.sleep(self.step)
        except (GeneratorExit, asyncio.CancelledError):
            self.aborted.append(work.id)
            raise
        finally:
            self.running[key] -= 1

    async def score(self, work: Work, continuations: Sequence[tuple[int, ...]]) -> tuple[float, ...]:
        (self.probed if work.token_ids == (0, 1) else self.works).append(work)
        self._check(work)
        for token in (*work.token_ids, *(token for one in continuations for token in one)):
            if token >= 256:
                raise InputError(f"token id {token}: expected 0 to 255")
        each = self.nats.get(work.bundle.revision, 1.0) if work.bundle else 1.0
        return tuple(-each * len(one) for one in continuations)

    async def load(self, bundle: ResidentBundle) -> dict[str, float]:
        await asyncio.sleep(self.load_step)
        if bundle.revision in self.refused:
            raise BundleFormatError(f"bundle {bundle.revision}: a worker refused it")
        if len(self.loaded) >= self._info.capacity:
            raise CapacityError("all places are pinned")
        if bundle.id in self.ids:
            self.violations.append(f"id {bundle.id} used again")
        if bundle.revision.removeprefix("sha256:") not in str(bundle.path) or not bundle.path.is_dir():
            self.violations.append(f"path {bundle.path} has no digest")
        self.ids.append(bundle.id)
        self.loaded[bundle.id] = bundle
        return {"verify": 0.2, "cast": 0.1, "slot": 0.001}

    async def unload(self, bundle: ResidentBundle) -> None:
        if self.running[bundle.id]:
            self.violations.append(f"{bundle.revision} unloaded under {self.running[bundle.id]} requests")
        self.loaded.pop(bundle.id, None)
        self.pinned.discard(bundle.id)

    async def pin(self, bundle: ResidentBundle) -> None:
        if self.loaded.get(bundle.id) != bundle:
            raise EngineError(f"bundle {bundle.revision} is not resident")
        if len(self.pinned | {bundle.id}) >= self._info.slots:
            raise CapacityError("no slot would be left for others")
        self.pinned.add(bundle.id)

    async def unpin(self, bundle: ResidentBundle) -> None:
        self.pinned.discard(bundle.id)

    async def resident(self) -> frozenset[int]:
        return frozenset(self.loaded)

    async def check(self) -> None:
        if isinstance(self.broken, EngineError):
            raise self.broken

    async def close(self) -> None:
        self.closed = True

    def _check(self, work: Work) -> None:
        if work.bundle is not None and self.loaded.get(work.bundle.id) != work.bundle:
            self.violations.append(f"{work.bundle.revision} ran without being loaded")
            raise EngineError(f"bundle {work.bundle.revision} is not resident")
