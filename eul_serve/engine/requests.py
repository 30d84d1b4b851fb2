"""Requests as vLLM runs them: answers piece by piece, and scores of given continuations."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from eul_serve.engine.base import Constraint, Piece, Sampling, Work
from eul_serve.engine.beams import Beam, search
from eul_serve.engine.compat import (
    SamplingParams,
    StructuredOutputsParams,
    delta_outputs,
    final_outputs,
    make_prompt,
)
from eul_serve.engine.llm import RunningLlm
from eul_serve.engine.residents import adapter_of
from eul_serve.errors import EngineError, EulError, InputError


class Requests:
    """Runs requests that were found acceptable."""

    def __init__(self, llm: RunningLlm, max_context: int) -> None:
        """Take a running vLLM.

        Args:
            llm: Where requests run.
            max_context: Longest prompt and answer together, in tokens.
        """
        self._llm, self._max_context = llm, max_context

    async def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece.

        Args:
            work: The request; its answer ends where the context does.

        Yields:
            The pieces; the last one has a finish reason.

        Raises:
            InputError: vLLM refuses the request.
            EngineError: The engine died.
        """
        params = _sampling_params(work.sampling, self._max_context - len(work.token_ids))
        async with aclosing(self._run(work, work.token_ids, params, work.id)) as outputs:
            first = True
            async for output in outputs:
                told = _prompt_logprobs(output, work.token_ids) if first and work.sampling.prompt_logprobs else ()
                first = False
                for number, one in enumerate(output.outputs):
                    if one.finish_reason == "error":  # such as a grammar that only the engine found to be none
                        raise _refusal(work, "the engine cannot follow it")
                    yield _piece(one, () if number else told)

    async def score(self, work: Work, continuations: Sequence[tuple[int, ...]]) -> tuple[float, ...]:
        """Return the summed log-probability in nats of each continuation after the prompt.

        Args:
            work: The prompt; its sampling is not used.
            continuations: Token ids; all run at the same time.

        Returns:
            One sum for each, in their order.

        Raises:
            InputError: vLLM refuses a request.
            EngineError: The engine died.
        """
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

    async def beams(self, work: Work, ends: Collection[int]) -> list[Beam]:
        """Return the answers that are likeliest as a whole; each step is a request of one token for every beam.

        Args:
            work: The request; its answers end where the context does.
            ends: Tokens that end an answer.

        Returns:
            As many answers as it asks for, the best first.

        Raises:
            EngineError: The engine died.
        """
        sampling, numbers = work.sampling, itertools.count()
        most = min(sampling.max_tokens, self._max_context - len(work.token_ids))

        async def step(made: tuple[int, ...]) -> Mapping[int, float]:
            one = replace(work, id=f"{work.id}-{next(numbers)}", token_ids=work.token_ids + made)
            return await self.likeliest(one, 2 * sampling.beams)

        return await search(step, sampling.beams, most, ends)

    async def likeliest(self, work: Work, count: int) -> dict[int, float]:
        """Return the most likely next tokens after a prompt.

        Args:
            work: The prompt; its sampling is not used.
            count: How many at least.

        Returns:
            Log-probability in nats by token.

        Raises:
            EngineError: The engine died.
        """
        params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=count, output_kind=final_outputs())
        found: dict[int, float] = {}
        async with aclosing(self._run(work, work.token_ids, params, work.id)) as outputs:
            async for output in outputs:
                found = {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}
        return found

    async def _run(
        self,
        work: Work,
        tokens: tuple[int, ...],
        params: SamplingParams,
        id: str,
    ) -> AsyncGenerator[Any, None]:
        prompt = make_prompt(tokens, work.salt)
        adapter = None if work.bundle is None else adapter_of(work.bundle)
        try:
            async with aclosing(self._llm.live.generate(prompt, params, id, lora_request=adapter)) as outputs:
                async for output in outputs:
                    yield output
        except EulError:
            raise
        except ValueError as error:
            raise InputError(f"request: {error}") from error
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            if work.sampling.constraint is not None and await self._lives():
                raise _refusal(work, text) from error
            raise EngineError(f"the engine failed: {text}") from error

    async def _lives(self) -> bool:
        try:
            await self._llm.check()
        except EngineError:
            return False
        return True


def _refusal(work: Work, text: str) -> EulError:
    """Return the error of a request that failed alone: it is the constraint, where there is one."""
    constraint = work.sampling.constraint
    if constraint is None:
        return EngineError(f"the engine failed: {text}; try again")
    return InputError(f"sampling.constraint.{constraint.kind}: {text[:300]}; give one that is well formed")


def _sampling_params(sampling: Sampling, room: int) -> SamplingParams:
    return SamplingParams(
        n=sampling.samples,
        max_tokens=min(sampling.max_tokens, room),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=list(sampling.stop),
        logprobs=0 if sampling.logprobs else None,
        prompt_logprobs=0 if sampling.prompt_logprobs else None,
        logit_bias=dict(sampling.logit_bias) or None,
        allowed_token_ids=list(sampling.allowed_tokens) or None,
        structured_outputs=None if sampling.constraint is None else _structured(sampling.constraint),
        output_kind=delta_outputs(),
    )


def _structured(constraint: Constraint) -> StructuredOutputsParams:
    texts = list(constraint.texts)
    if constraint.kind == "choice":
        return StructuredOutputsParams(choice=texts)
    return StructuredOutputsParams(**{constraint.kind.removesuffix("_schema"): texts[0]})


def _prompt_logprobs(output: Any, prompt: tuple[int, ...]) -> tuple[float, ...]:  # noqa: ANN401  # vLLM is not typed
    """Return what the prompt's tokens had, from the second on: nothing stands before the first."""
    entries = (output.prompt_logprobs or ())[1:]
    return tuple(float(entry[token].logprob) for entry, token in zip(entries, prompt[1:], strict=True))


def _piece(output: Any, prompt_logprobs: tuple[float, ...]) -> Piece:  # noqa: ANN401  # vLLM is not typed
    tokens = tuple(output.token_ids)
    entries = output.logprobs or ()
    return Piece(
        text=output.text,
        token_ids=tokens,
        logprobs=tuple(float(entry[token].logprob) for entry, token in zip(entries, tokens, strict=bool(entries))),
        finish_reason=output.finish_reason,
        choice=output.index,
        prompt_logprobs=prompt_logprobs,
    )
