"""The routes that OpenAI's clients know, each as ask -> job -> engine -> JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import aclosing

from eul_serve.openai.answers import Gathered, Shape, check_ended, usage
from eul_serve.openai.request import Asked, read_chat, read_completion
from eul_serve.policy import BASE
from eul_serve.rpc.adapters import Adapters
from eul_serve.rpc.current import current_caller
from eul_serve.rpc.runner import Job, Runner
from eul_serve.web.app import Route
from eul_serve.web.exchange import Exchange


class OpenAiEndpoint:
    """Answers prompts over HTTP."""

    def __init__(self, runner: Runner, adapters: Adapters) -> None:
        self._runner = runner
        self._adapters = adapters
        self.ready = False
        """Whether requests are welcome."""

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Return all that is served; nothing else is."""
        return {
            ("POST", "/v1/chat/completions"): Route("ChatCompletions", self._chat),
            ("POST", "/v1/completions"): Route("Completions", self._complete),
            ("GET", "/v1/models"): Route("Models", self._models),
            ("GET", "/health"): Route("Health", self._health, is_open=True),
        }

    async def _chat(self, exchange: Exchange) -> None:
        await self._answer(exchange, read_chat(await exchange.json()))

    async def _complete(self, exchange: Exchange) -> None:
        await self._answer(exchange, read_completion(await exchange.json()))

    async def _models(self, exchange: Exchange) -> None:
        """List what the caller may name, as the registry has it now."""
        tenant = current_caller().tenant
        names = [str(one) for one in await asyncio.to_thread(self._adapters.references, tenant)]
        names += [BASE.value] if tenant.base else []
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": tenant.name} for name in names]
        await exchange.reply_json(200, {"object": "list", "data": listed})

    async def _health(self, exchange: Exchange) -> None:
        await exchange.reply(200 if self.ready else 503, b"ok\n" if self.ready else b"not ready\n", "text/plain")

    async def _answer(self, exchange: Exchange, asked: Asked) -> None:
        started, caller = time.monotonic(), current_caller()
        async with self._runner.job(caller, asked.ask) as job:
            shape = Shape(
                chat=asked.chat,
                id=exchange.request_id,
                model=asked.ask.adapter or caller.tenant.default_adapter,
                revision=job.revision,
            )
            write = self._stream if asked.stream else self._whole
            await write(exchange, asked, job, shape, started)

    async def _whole(self, exchange: Exchange, asked: Asked, job: Job, shape: Shape, started: float) -> None:
        answers = [Gathered() for _ in range(asked.ask.sampling.answers)]
        async with aclosing(self._runner.pieces(job, started)) as pieces:
            async for piece in pieces:
                answers[piece.choice].add(piece)
        check_ended(answers)
        used = usage(len(job.work.token_ids), sum(len(answer.tokens) for answer in answers))
        choices = [shape.choice(index, answer, _lead(asked)) for index, answer in enumerate(answers)]
        await exchange.reply_json(200, shape.whole(choices, used), _told(job))

    async def _stream(self, exchange: Exchange, asked: Asked, job: Job, shape: Shape, started: float) -> None:
        made, ends = 0, [Gathered() for _ in range(asked.ask.sampling.answers)]
        for index in range(len(ends)):
            first = shape.delta(index, Gathered(_lead(asked)), first=True)
            await exchange.event(json.dumps(shape.chunk([first])), _told(job))
        async with aclosing(self._runner.pieces(job, started)) as pieces:
            async for piece in pieces:
                made += len(piece.token_ids)
                step = Gathered()
                step.add(piece)
                ends[piece.choice].reason = piece.finish_reason
                await exchange.event(json.dumps(shape.chunk([shape.delta(piece.choice, step)])))
        check_ended(ends)
        if asked.usage:
            await exchange.event(json.dumps(shape.chunk([], usage(len(job.work.token_ids), made))))
        await exchange.event("[DONE]")
        await exchange.end()


def _lead(asked: Asked) -> str:
    """Return what is put in front of every answer: the prompt, where it is to be echoed."""
    return asked.ask.prompt if asked.ask.echo and isinstance(asked.ask.prompt, str) else ""


def _told(job: Job) -> dict[str, str]:
    return {"x-eul-revision": job.revision}
