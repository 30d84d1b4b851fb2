"""What every answer goes through: right, prompt, lease, revision, salt; then the engine."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from eul_serve.engine.base import Engine, Piece, Prompt, ResidentBundle, Sampling, Work
from eul_serve.format import Reference
from eul_serve.identity import Caller
from eul_serve.metrics import Metrics
from eul_serve.policy import BASE, Right, TenantPolicy
from eul_serve.rpc.current import current_record
from eul_serve.rpc.rights import needed_rights
from eul_serve.rpc.salt import Salter
from eul_serve.rpc.validate import check_length, check_prompt, check_sampling, fit
from eul_serve.swap.finder import Finder
from eul_serve.swap.leases import Leases
from eul_serve.swap.residency import Residency
from eul_serve.trace import stage_span
from eul_serve.traffic import Charge, Line, Quotas

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
    readings: int = 1
    """How often the prompt is read."""
    echo: bool = False
    """Whether the prompt's tokens go back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What stands between the callers and the engine."""

    leases: Leases
    """Requests in flight."""
    quotas: Quotas
    """Requests and tokens by the minute."""
    line: Line
    """The line in front of the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that may run, pinned to its revision."""

    work: Work
    """What the engine does."""
    revision: str
    """`sha256:<hex>`, or `base`."""
    charge: Charge
    """What it has used of its tenant's quota."""


class Runner:
    """Admits requests and runs them."""

    def __init__(
        self,
        engine: Engine,
        finder: Finder,
        residency: Residency,
        traffic: Traffic,
        salter: Salter,
        metrics: Metrics,
    ) -> None:
        self.engine = engine
        self._finder = finder
        self._residency = residency
        self._traffic = traffic
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
        rights = needed_rights(ask.sampling, echo=ask.echo)
        for right in sorted(rights):
            caller.tenant.require(right)
        token_ids = self._read(ask)
        sampling = fit(ask.sampling, len(token_ids), self.engine.info.max_context)
        tokens = ask.readings * (len(token_ids) + sampling.answers * sampling.max_tokens)
        reference = target if target is not BASE else None
        async with self._admitted(caller, reference, rights, tokens) as (charge, bundle):
            charge.used = ask.readings * len(token_ids)
            self._metrics.tokens.labels(kind="prompt").inc(len(token_ids))
            revision = bundle.revision if bundle else BASE_REVISION
            record = current_record()
            record.revision, record.prompt_tokens = revision, len(token_ids)
            salt = self._salter.salt(caller.tenant.name, revision, caller.epoch)
            work = Work(id=secrets.token_hex(8), token_ids=token_ids, bundle=bundle, salt=salt, sampling=sampling)
            yield Job(work=work, revision=revision, charge=charge)

    async def pieces(self, job: Job, started: float) -> AsyncGenerator[Piece, None]:
        """Run a job on the engine; closing the iterator stops it.

        Args:
            job: The job.
            started: Monotonic seconds at which the call came.

        Yields:
            The answer piece by piece.
        """
        last: dict[int, float] = {}
        record = current_record()
        generator = cast(AsyncGenerator[Piece, None], self.engine.generate(job.work))
        with stage_span("engine"):
            async with aclosing(generator) as pieces:
                async for piece in pieces:
                    now, count = time.monotonic(), len(piece.token_ids)
                    if count and piece.choice in last:
                        self._metrics.inter_token.observe((now - last[piece.choice]) / count)
                    elif count and not last:
                        self._metrics.first_token.observe(now - started)
                    if count:
                        last[piece.choice] = now
                    job.charge.used += count
                    record.completion_tokens += count
                    self._metrics.tokens.labels(kind="completion").inc(count)
                    yield piece

    @asynccontextmanager
    async def _admitted(
        self, caller: Caller, reference: Reference | None, rights: frozenset[Right], tokens: int
    ) -> AsyncIterator[tuple[Charge, ResidentBundle | None]]:
        """Hold all that a request needs: its lease, its tokens, its place in the line, and its revision."""
        tenant, traffic = caller.tenant, self._traffic
        with (
            traffic.leases.hold(caller, reference, rights) as lease,
            traffic.quotas.charge(tenant, tokens) as charge,
        ):
            if reference is not None:
                with stage_span("find"):
                    await self._finder.find(reference)  # no place at the engine is held while a bundle is loaded
            async with self._place(tenant, tokens):
                charge.counts = True
                if reference is None:
                    yield charge, None
                else:  # pinned only now: whoever waits in the line runs on what is served when its turn comes
                    entry = await self._finder.find(reference)
                    with self._residency.admit(entry) as bundle:
                        lease.revision = entry.revision
                        yield charge, bundle

    @asynccontextmanager
    async def _place(self, tenant: TenantPolicy, tokens: int) -> AsyncIterator[None]:
        line, started = self._traffic.line, time.monotonic()
        with self._metrics.waiting.track_inprogress(), stage_span("queue"):
            stack = AsyncExitStack()
            await stack.enter_async_context(line.place(tenant.name, tokens, tenant.quota.priority))
        self._metrics.queue_seconds.observe(time.monotonic() - started)
        async with stack:
            yield

    def _read(self, ask: Ask) -> tuple[int, ...]:
        longest = self.engine.info.max_context
        check_sampling(ask.sampling)
        check_prompt(ask.prompt, longest)
        token_ids = self.engine.encode(ask.prompt)
        check_length(len(token_ids), longest)
        return token_ids
