"""The engine that serves: `Engine` on vLLM's AsyncLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any

from eul_serve.engine.base import EngineInfo, Piece, Prompt, ResidentBundle, Sampling, Work
from eul_serve.engine.compat import LoRARequest, SamplingParams, delta_outputs, final_outputs, make_prompt, stop_llm
from eul_serve.engine.loading import check_path
from eul_serve.engine.probe import compare, make_probe
from eul_serve.engine.prompts import Prompts
from eul_serve.engine.settings import EngineSettings
from eul_serve.engine.start import ProbeDirectory, check_model, check_workers, create_llm
from eul_serve.errors import BundleFormatError, CapacityError, EngineError, EulError, InputError, RefusedError
from eul_serve.format import fingerprint, read_bundle

_PROBE_ID = 2**30
_PROBE_TOKENS = (0, 1, 2)
_PROBE_TOP = 5
_SHUTDOWN_SECONDS = 30.0
_POKE_SECONDS = 2.0


class _Closed:
    """What stands in vLLM's place once the engine is closed."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # in the place of whatever was asked for
        raise EngineError("the engine is closed")


class VllmEngine:
    """One base model on vLLM, with hot-swapped bundles."""

    def __init__(
        self,
        llm: Any,  # noqa: ANN401  # vLLM is not typed
        info: EngineInfo,
        prompts: Prompts,
        bundles: Path | None,
    ) -> None:
        """Take a started vLLM; `start` makes one and proves it."""
        self._llm, self._info, self._prompts, self._bundles = llm, info, prompts, bundles
        self._deny_base = True
        self._resident: dict[int, ResidentBundle] = {}
        self._used_ids: set[int] = set()
        self._loading = asyncio.Lock()

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
        info = EngineInfo(
            model=str(settings.model),
            fingerprint=await asyncio.to_thread(fingerprint, settings.model),
            max_context=settings.max_context,
            max_rank=settings.vllm_rank,
            slots=settings.slots,
            capacity=settings.capacity,
            dtype=settings.dtype,
        )
        llm = create_llm(settings)
        prompts = Prompts.load(settings.model, llm.model_config.get_vocab_size(), settings.max_context)
        engine = cls(llm, info, prompts, settings.bundles)
        try:
            await engine._prove(settings)
            await llm.collective_rpc("eul_deny_base", args=(settings.deny_base,))
        except BaseException:
            await engine.close()
            raise
        engine._deny_base = settings.deny_base
        return engine

    async def _prove(self, settings: EngineSettings) -> None:
        modules = await check_workers(self._llm)
        with ProbeDirectory(settings.bundles) as path:
            probe = await asyncio.to_thread(make_probe, path, settings.model, modules, settings.dtype)
            bundle = ResidentBundle(revision=probe.bundle.revision, id=_PROBE_ID, path=path, rank=1)
            await self._add(bundle)
            params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=_PROBE_TOP, output_kind=final_outputs())
            work = Work(id="probe", token_ids=_PROBE_TOKENS, bundle=bundle, salt="probe")
            found: dict[int, float] = {}
            async for output in self._run(work, work.token_ids, params, "probe"):
                found = {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}
            await self.unload(bundle)
        compare(probe, found)

    @property
    def info(self) -> EngineInfo:
        """What the engine proved at start."""
        return self._info

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt.

        Raises:
            InputError: The prompt is empty, too long, or cannot be encoded.
        """
        return self._prompts.encode(prompt)

    async def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece; closing the iterator stops the work.

        Raises:
            InputError: The prompt does not fit the context.
            RefusedError: No bundle, where the base is denied.
            EngineError: The engine died, or the bundle is not resident.
        """
        self._check(work)
        room = self._info.max_context - len(work.token_ids)
        params = _sampling_params(work.sampling, room)
        async with aclosing(self._run(work, work.token_ids, params, work.id)) as outputs:
            async for output in outputs:
                yield _piece(output.outputs[0])

    async def score(self, work: Work, continuations: Sequence[tuple[int, ...]]) -> tuple[float, ...]:
        """Return the summed log-probability in nats of each continuation after the prompt.

        Raises:
            InputError: A continuation is empty, or does not fit the context with the prompt.
            RefusedError: No bundle, where the base is denied.
            EngineError: The engine died, or the bundle is not resident.
        """
        self._check(work)
        for continuation in continuations:
            if not continuation:
                raise InputError("continuation: expected at least one token, found none")
            self._prompts.check(work.token_ids + continuation)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._score(work, number, ids)) for number, ids in enumerate(continuations)]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return tuple(task.result() for task in tasks)

    async def _score(self, work: Work, number: int, continuation: tuple[int, ...]) -> float:
        tokens = work.token_ids + continuation
        params = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False, output_kind=final_outputs()
        )
        total = 0.0
        async with aclosing(self._run(work, tokens, params, f"{work.id}-{number}")) as outputs:
            async for output in outputs:
                entries = output.prompt_logprobs[len(work.token_ids) :]
                total = sum(entry[token].logprob for entry, token in zip(entries, continuation, strict=True))
        return float(total)

    def _check(self, work: Work) -> None:
        self._prompts.check(work.token_ids)
        if work.bundle is None:
            if self._deny_base:
                raise RefusedError("the base model is denied in this engine; name a bundle")
        elif self._resident.get(work.bundle.id) != work.bundle:
            raise EngineError(f"bundle {work.bundle.revision}: not resident; load it before use")

    async def _run(
        self,
        work: Work,
        tokens: tuple[int, ...],
        params: SamplingParams,
        id: str,
    ) -> AsyncGenerator[Any, None]:
        prompt = make_prompt(tokens, work.salt)
        adapter = None if work.bundle is None else _adapter(work.bundle)
        try:
            async with aclosing(self._llm.generate(prompt, params, id, lora_request=adapter)) as outputs:
                async for output in outputs:
                    yield output
        except EulError:
            raise
        except ValueError as error:
            raise InputError(f"request: {error}") from error
        except Exception as error:
            raise EngineError(f"the engine failed: {error or type(error).__name__}") from error

    async def load(self, bundle: ResidentBundle) -> None:
        """Bring a bundle into every worker and pin it in host memory.

        Raises:
            InputError: The path is not acceptable, or does not hold the digest.
            BundleFormatError: The files are not the revision, or a worker refused them.
            BundleMismatchError: The bundle was made for another base model.
            CapacityError: All places are taken, or the rank is too high.
            EngineError: The id was used before.
        """
        async with self._loading:
            if bundle.rank > self._info.max_rank:
                raise CapacityError(
                    f"bundle {bundle.revision}: rank: expected at most {self._info.max_rank}, found {bundle.rank}; "
                    "start the server with a higher maximum rank"
                )
            if len(self._resident) >= self._info.capacity:
                raise CapacityError(
                    f"bundle {bundle.revision}: all {self._info.capacity} places in host memory are taken; "
                    "unload another bundle or start the server with a larger capacity"
                )
            if bundle.revision.removeprefix("sha256:") not in bundle.path.parts:
                raise InputError(f"bundle path {str(bundle.path)!r}: expected its digest in the path")
            await self._add(bundle)

    async def _add(self, bundle: ResidentBundle) -> None:
        if bundle.id in self._used_ids:
            raise EngineError(f"adapter id {bundle.id}: expected a fresh one; ids are never used again")
        check_path(bundle.path, self._bundles)
        # The workers check all this again; here it gives errors of the right kind, and before they are disturbed.
        found = await asyncio.to_thread(read_bundle, bundle.path, self._info.fingerprint)
        if found.revision != bundle.revision or found.config.rank != bundle.rank:
            raise BundleFormatError(
                f"bundle path {str(bundle.path)!r}: expected {bundle.revision}, found {found.revision}"
            )
        self._used_ids.add(bundle.id)
        try:
            await self._llm.add_lora(_adapter(bundle))
            await self._llm.pin_lora(bundle.id)
        except Exception as error:
            with suppress(Exception):
                await self._llm.remove_lora(bundle.id)
            await self.check()
            raise BundleFormatError(f"bundle {bundle.revision}: a worker refused it: {error}") from error
        self._resident[bundle.id] = bundle

    async def unload(self, bundle: ResidentBundle) -> None:
        """Remove a bundle from every worker; nothing happens where it is not loaded."""
        self._resident.pop(bundle.id, None)
        with _as_engine_error():
            await self._llm.remove_lora(bundle.id)

    async def resident(self) -> frozenset[int]:
        """Return the ids that every worker holds."""
        with _as_engine_error():
            return frozenset(await self._llm.list_loras()) & self._resident.keys()

    async def check(self) -> None:
        """Return when the engine can serve.

        Raises:
            EngineError: It cannot.
        """
        with _as_engine_error():
            await self._llm.check_health()

    async def close(self) -> None:
        """Stop the engine and wait for its processes."""
        llm, self._llm = self._llm, _Closed()
        self._resident.clear()
        if isinstance(llm, _Closed):
            return
        if llm.output_handler is not None and not llm.get_num_unfinished_requests():
            llm.output_handler.cancel()  # else it reports the end of the engine as a failure
        stopping = asyncio.create_task(asyncio.to_thread(stop_llm, llm, _SHUTDOWN_SECONDS))
        await asyncio.wait([stopping], timeout=_POKE_SECONDS)
        if not stopping.done():
            # vLLM's idle engine process may sleep through the signal until some message wakes it.
            with suppress(Exception):
                await asyncio.wait_for(llm.list_loras(), 1.0)
        await stopping


@contextmanager
def _as_engine_error() -> Iterator[None]:
    try:
        yield
    except EulError:
        raise
    except Exception as error:
        raise EngineError(f"the engine failed: {error or type(error).__name__}; restart the server") from error


def _adapter(bundle: ResidentBundle) -> LoRARequest:
    # vLLM keys its prefix cache by name (and path), and tells requests in a batch apart by name alone: the name
    # holds the digest, and the id, because a revision may be loaded twice.
    return LoRARequest(lora_name=f"{bundle.revision}.{bundle.id}", lora_int_id=bundle.id, lora_path=str(bundle.path))


def _sampling_params(sampling: Sampling, room: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=min(sampling.max_tokens, room),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=list(sampling.stop),
        logprobs=0 if sampling.logprobs else None,
        output_kind=delta_outputs(),
    )


def _piece(output: Any) -> Piece:  # noqa: ANN401  # vLLM is not typed
    tokens = tuple(output.token_ids)
    entries = output.logprobs or ()
    return Piece(
        text=output.text,
        token_ids=tokens,
        logprobs=tuple(float(entry[token].logprob) for entry, token in zip(entries, tokens, strict=bool(entries))),
        finish_reason=output.finish_reason,
    )
