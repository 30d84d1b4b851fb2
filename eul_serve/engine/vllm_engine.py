"""The engine that serves: `Engine` on vLLM's AsyncLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from eul_serve.engine.admission import Admission
from eul_serve.engine.base import EngineInfo, Piece, Prompt, ResidentBundle, Work
from eul_serve.engine.checks import check_model
from eul_serve.engine.llm import RunningLlm
from eul_serve.engine.prompts import Prompts
from eul_serve.engine.proof import prove
from eul_serve.engine.requests import Requests
from eul_serve.engine.residents import Residents
from eul_serve.engine.settings import EngineSettings
from eul_serve.engine.start import create_llm
from eul_serve.engine.turns import Turns
from eul_serve.format import fingerprint


class VllmEngine:
    """One base model on vLLM, with hot-swapped bundles."""

    def __init__(self, llm: RunningLlm, info: EngineInfo, prompts: Prompts, settings: EngineSettings) -> None:
        """Take a started vLLM; `start` makes one and proves it."""
        self._llm, self._info, self._prompts = llm, info, prompts
        self._residents = Residents(llm, info, settings.bundles)
        self._admission = Admission(prompts, self._residents, Turns(settings.slots, settings.turn_seconds))
        self._requests = Requests(llm, info.max_context)

    @classmethod
    async def start(cls, settings: EngineSettings) -> VllmEngine:
        """Start vLLM and prove that bundles are applied in every worker.

        Args:
            settings: How to start.

        Returns:
            The engine, ready to serve.

        Raises:
            InputError: A setting or the model is not acceptable.
            EngineError: vLLM does not start, or does not do what it must.
        """
        check_model(settings.model)
        own = await asyncio.to_thread(fingerprint, settings.model)
        info = EngineInfo(
            model=str(settings.model),
            fingerprint=settings.derived_from.get(own, own),
            max_context=settings.max_context,
            max_rank=settings.vllm_rank,
            slots=settings.slots,
            capacity=settings.capacity,
            batch=settings.max_batch,
            dtype=settings.dtype,
            fine_tunes=settings.fine_tunes,
        )
        llm = create_llm(settings)
        prompts = Prompts.load(settings.model, llm.model_config.get_vocab_size(), settings.max_context)
        engine = cls(RunningLlm(llm), info, prompts, settings)
        try:
            await prove(engine._llm, engine._residents, engine._requests, settings, info.fingerprint)
            await engine._llm.live.collective_rpc("eul_deny_base", args=(settings.deny_base,))
        except BaseException:
            await engine.close()
            raise
        engine._admission.deny_base = settings.deny_base
        return engine

    @property
    def info(self) -> EngineInfo:
        """What the engine proved at start."""
        return self._info

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt.

        Args:
            prompt: What to encode; token ids are only checked.

        Returns:
            The ids, at least one and fewer than the context holds.

        Raises:
            InputError: The prompt is empty, too long, or cannot be encoded.
        """
        return self._prompts.encode(prompt)

    async def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece; closing the iterator stops the work.

        Args:
            work: The request; its bundle must be resident.

        Yields:
            The pieces; the last one has a finish reason.

        Raises:
            InputError: The prompt does not fit the context.
            RefusedError: No bundle, where the base is denied.
            EngineError: The engine died, or the bundle is not resident.
        """
        make = self._search if work.sampling.beams else self._requests.generate
        async with self._admission.turn(work), aclosing(make(work)) as pieces:
            async for piece in pieces:
                yield piece

    async def _search(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Yield the answers of a beam search, each whole."""
        found = await self._requests.beams(work, self._prompts.ends)
        for number, beam in enumerate(found):
            yield Piece(
                text=self._prompts.decode(beam.tokens),
                token_ids=beam.tokens,
                logprobs=beam.logprobs if work.sampling.logprobs else (),
                finish_reason="stop" if beam.ended else "length",
                choice=number,
            )

    async def score(self, work: Work, continuations: Sequence[tuple[int, ...]]) -> tuple[float, ...]:
        """Return the summed log-probability in nats of each continuation after the prompt.

        Args:
            work: The prompt; its bundle must be resident, its sampling is not used.
            continuations: Token ids, at least one in each.

        Returns:
            One sum for each, in their order.

        Raises:
            InputError: A continuation is empty, or does not fit the context with the prompt.
            RefusedError: No bundle, where the base is denied.
            EngineError: The engine died, or the bundle is not resident.
        """
        async with self._admission.turn(work, continuations):
            return await self._requests.score(work, continuations)

    async def load(self, bundle: ResidentBundle) -> dict[str, float]:
        """Bring a bundle into every worker and pin it in host memory.

        Args:
            bundle: A bundle with a fresh id and its digest in the path.

        Returns:
            Seconds by stage: verify and cast, while the workers decode, and slot.

        Raises:
            InputError: The path is not acceptable, or does not hold the digest.
            BundleFormatError: The files are not the revision, or a worker refused them.
            BundleMismatchError: The bundle was made for another base model.
            CapacityError: All places are taken, or the rank is too high.
            EngineError: The id was used before.
        """
        return await self._residents.load(bundle)

    async def pin(self, bundle: ResidentBundle) -> None:
        """Let a resident bundle keep a slot of its own, so that its requests never wait for one.

        Args:
            bundle: The bundle.

        Raises:
            EngineError: It is not resident, or the engine died.
            CapacityError: No slot would be left for other bundles.
        """
        await self._admission.pin(bundle)

    async def unpin(self, bundle: ResidentBundle) -> None:
        """Let a bundle's slot go again; nothing happens where it is not pinned."""
        await self._admission.unpin(bundle)

    async def unload(self, bundle: ResidentBundle) -> None:
        """Remove a bundle from every worker, from its own slot too; nothing happens where it is not loaded."""
        self._admission.turns.unpin(bundle.id)
        await self._residents.unload(bundle)

    async def resident(self) -> frozenset[int]:
        """Return the ids that every worker holds."""
        return await self._residents.ids()

    async def check(self) -> None:
        """Return when the engine can serve.

        Raises:
            EngineError: It cannot.
        """
        await self._llm.check()

    async def close(self) -> None:
        """Stop the engine and wait for its processes."""
        self._residents.forget()
        await self._llm.close()
