"""What every answer goes through: right, prompt, lease, revision, salt; then the engine."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from eul_serve.engine.base import Engine, Piece, Prompt, ResidentBundle, Sampling, Work
from eul_serve.format import Reference
from eul_serve.metrics import Metrics
from eul_serve.policy import BASE, Right
from eul_serve.rpc.salt import Salter
from eul_serve.rpc.validate import check_length, check_prompt, check_sampling, fit
from eul_serve.swap.follower import Follower
from eul_serve.swap.leases import Caller, Leases
from eul_serve.swap.residency import Residency

BASE_REVISION = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request, in our own types."""

    adapter: str
    """What the caller named."""
    prompt: Prompt
    """What the model reads."""
    sampling: Sampling
    """How to choose tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that may run, pinned to its revision."""

    work: Work
    """What the engine does."""
    revision: str
    """`sha256:<hex>`, or `base`."""


class Runner:
    """Admits requests and runs them."""

    def __init__(
        self,
        engine: Engine,
        follower: Follower,
        residency: Residency,
        leases: Leases,
        salter: Salter,
        metrics: Metrics,
    ) -> None:
        self.engine = engine
        self._follower = follower
        self._residency = residency
        self._leases = leases
        self._salter = salter
        self._metrics = metrics

    @asynccontextmanager
    async def job(self, caller: Caller, ask: Ask) -> AsyncIterator[Job]:
        """Admit a request; its revision stays in the engine, and its right is watched, until the context ends.

        Args:
            caller: Who asks.
            ask: What is asked.

        Yields:
            The job.

        Raises:
            EulError: It may not run, or was stopped.
        """
        # The right comes first: an unknown and a forbidden adapter cost the same and look the same.
        target = caller.tenant.authorize(ask.adapter)
        rights: frozenset[Right] = frozenset(["logprobs"]) if ask.sampling.logprobs else frozenset()
        for right in rights:
            caller.tenant.require(right)
        token_ids = self._read(ask)
        self._metrics.tokens.labels(kind="prompt").inc(len(token_ids))
        reference = target if target is not BASE else None
        with self._leases.hold(caller, reference, rights):
            if reference is None:
                yield self._job(caller, ask, token_ids, None)
            else:
                async with self._resident(reference) as bundle:
                    yield self._job(caller, ask, token_ids, bundle)

    async def pieces(self, job: Job, started: float) -> AsyncGenerator[Piece, None]:
        """Run a job on the engine; closing the iterator stops it.

        Args:
            job: The job.
            started: Monotonic seconds at which the call came.

        Yields:
            The answer piece by piece.
        """
        last = 0.0
        generator = cast(AsyncGenerator[Piece, None], self.engine.generate(job.work))
        async with aclosing(generator) as pieces:
            async for piece in pieces:
                now, count = time.monotonic(), len(piece.token_ids)
                if count and last:
                    self._metrics.inter_token.observe((now - last) / count)
                elif count:
                    self._metrics.first_token.observe(now - started)
                last = now if count else last
                self._metrics.tokens.labels(kind="completion").inc(count)
                yield piece

    @asynccontextmanager
    async def _resident(self, reference: Reference) -> AsyncIterator[ResidentBundle]:
        entry = await self._follower.find(reference)
        with self._residency.admit(entry) as bundle:
            yield bundle

    def _read(self, ask: Ask) -> tuple[int, ...]:
        longest = self.engine.info.max_context
        check_sampling(ask.sampling)
        check_prompt(ask.prompt, longest)
        token_ids = self.engine.encode(ask.prompt)
        check_length(len(token_ids), longest)
        return token_ids

    def _job(self, caller: Caller, ask: Ask, token_ids: tuple[int, ...], bundle: ResidentBundle | None) -> Job:
        revision = bundle.revision if bundle else BASE_REVISION
        work = Work(
            id=secrets.token_hex(8),
            token_ids=token_ids,
            bundle=bundle,
            salt=self._salter.salt(caller.tenant.name, revision, caller.epoch),
            sampling=fit(ask.sampling, len(token_ids), self.engine.info.max_context),
        )
        return Job(work=work, revision=revision)
