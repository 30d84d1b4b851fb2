"""GenerationService: each RPC is ask -> job -> engine -> message."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import aclosing
from itertools import takewhile

from eul_serve.engine.base import Engine, Piece, Prompt, Sampling
from eul_serve.errors import EngineError
from eul_serve.rpc import convert
from eul_serve.rpc.calls import Calls
from eul_serve.rpc.context import CallContext
from eul_serve.rpc.current import current_caller
from eul_serve.rpc.runner import Ask, Job, Runner
from eul_serve.rpc.validate import check_labels, check_length
from eul_serve.v1 import generation_service_pb2 as pb
from eul_serve.v1 import generation_service_pb2_grpc as services


class GenerationServicer(services.GenerationServiceServicer):
    """Answers prompts."""

    def __init__(self, calls: Calls, runner: Runner) -> None:
        self._calls = calls
        self._runner = runner

    async def Generate(self, request: pb.GenerateRequest, context: CallContext) -> pb.GenerateResponse:
        """Answer a prompt in one message."""
        return await self._calls.answer("Generate", context, self._generate(request))

    async def GenerateStream(self, request: pb.GenerateStreamRequest, context: CallContext) -> None:
        """Answer a prompt piece by piece; writes here, so that a revoked right is caught inside the lease."""
        await self._calls.answer("GenerateStream", context, self._stream(request, context))

    async def Classify(self, request: pb.ClassifyRequest, context: CallContext) -> pb.ClassifyResponse:
        """Choose a label."""
        return await self._calls.answer("Classify", context, self._classify(request))

    async def _generate(self, request: pb.GenerateRequest) -> pb.GenerateResponse:
        started = time.monotonic()
        ask = _ask(request)
        async with self._runner.job(current_caller(), ask) as job:
            answer = pb.GenerateResponse(revision=job.revision, prompt_token_ids=_echoed(ask, job))
            choices = [pb.Choice() for _ in range(ask.sampling.answers)]
            async with aclosing(self._runner.pieces(job, started)) as pieces:
                async for piece in pieces:
                    _add(choices[piece.choice], piece)
                    answer.prompt_logprobs.extend(piece.prompt_logprobs)
            made = sum(len(choice.token_ids) for choice in choices)
            answer.usage.CopyFrom(convert.usage(len(job.work.token_ids), made))
        for choice in choices:
            _check_finished(choice.finish_reason)
        first, *others = choices
        answer.others.extend(others)
        answer.MergeFrom(
            pb.GenerateResponse(
                text=first.text,
                finish_reason=first.finish_reason,
                token_ids=first.token_ids,
                logprobs=first.logprobs,
            )
        )
        return answer

    async def _stream(self, request: pb.GenerateStreamRequest, context: CallContext) -> None:
        started = time.monotonic()
        ask = _ask(request)
        async with self._runner.job(current_caller(), ask) as job:
            read, made = len(job.work.token_ids), 0
            reasons = [pb.FINISH_REASON_UNSPECIFIED] * ask.sampling.answers
            first = pb.GenerateStreamResponse(
                revision=job.revision, usage=convert.usage(read, 0), prompt_token_ids=_echoed(ask, job)
            )
            await context.write(first)
            async with aclosing(self._runner.pieces(job, started)) as pieces:
                async for piece in pieces:
                    made += len(piece.token_ids)
                    reasons[piece.choice] = convert.finish_reason_of(piece.finish_reason)
                    await context.write(convert.stream_response(piece, job.revision, convert.usage(read, made)))
        for reason in reasons:
            _check_finished(reason)

    async def _classify(self, request: pb.ClassifyRequest) -> pb.ClassifyResponse:
        labels = list(request.labels)
        check_labels(labels)
        prompt = convert.prompt_of(request.prompt)
        engine = self._runner.engine
        # Each label is read behind the whole prompt, and counts like an answer of its length.
        longest = max(len(engine.encode(label)) for label in labels)
        sampling = Sampling(max_tokens=longest)
        ask = Ask(adapter=request.adapter, prompt=prompt, sampling=sampling, readings=len(labels))
        async with self._runner.job(current_caller(), ask) as job:
            read = job.work.token_ids
            continuations = [continuation(engine, prompt, read, label) for label in labels]
            check_length(len(read) + max(map(len, continuations)), engine.info.max_context)
            scores = await engine.score(job.work, continuations)
            job.charge.used += sum(map(len, continuations))
        return convert.classify_response(labels, softmax(scores), job.revision, len(read))


def continuation(engine: Engine, prompt: Prompt, read: tuple[int, ...], label: str) -> tuple[int, ...]:
    """Return a label's tokens as they follow a prompt.

    Args:
        engine: Tokenizes.
        prompt: The prompt.
        read: The prompt's tokens.
        label: The label's text.

    Returns:
        At least one token: cut from prompt and label read together where that only adds tokens to the prompt's,
        else the label read alone, without what the tokenizer puts before every text.
    """
    if isinstance(prompt, str):
        joint = engine.encode(prompt + label)
        if joint[: len(read)] == read and len(joint) > len(read):
            return joint[len(read) :]
    # Two texts with nothing in common start with the same tokens only where the tokenizer put them there.
    pairs = zip(engine.encode("0"), engine.encode("1"), strict=False)
    lead = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return engine.encode(label)[lead:]


def softmax(scores: Sequence[float]) -> list[float]:
    """Return probabilities from log-likelihoods in nats."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    return [weight / sum(weights) for weight in weights]


def _ask(request: pb.GenerateRequest | pb.GenerateStreamRequest) -> Ask:
    return Ask(
        adapter=request.adapter,
        prompt=convert.prompt_of(request.prompt),
        sampling=convert.sampling_of(request.sampling),
        echo=request.sampling.echo,
    )


def _echoed(ask: Ask, job: Job) -> tuple[int, ...]:
    return job.work.token_ids if ask.echo else ()


def _add(choice: pb.Choice, piece: Piece) -> None:
    choice.text += piece.text
    choice.token_ids.extend(piece.token_ids)
    choice.logprobs.extend(piece.logprobs)
    choice.finish_reason = convert.finish_reason_of(piece.finish_reason)


def _check_finished(reason: pb.FinishReason) -> None:
    """An answer that the engine broke off is no answer."""
    if reason in (pb.FINISH_REASON_UNSPECIFIED, pb.FINISH_REASON_ABORT):
        raise EngineError("the engine stopped before the answer ended; try again")
