"""The OpenAI-compatible endpoint with OpenAI's own client, and with raw HTTP where that client is too well-behaved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from eul_serve.address import Address
from eul_serve.errors import EngineError
from eul_serve.policy import RIGHTS
from eul_serve.rpc.transport import TransportSettings
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import Service, ServiceHome, token_of

LISTEN = TransportSettings(listen=Address("127.0.0.1", 0))
HI: list[Any] = [{"role": "user", "content": "hi"}]


def write_policy(home: ServiceHome, **acme: Any) -> None:
    home.write_policy(
        acme={"default": "poems:stable", "bundles": ["poems"], **acme},
        zeta={"default": "novels:stable", "bundles": ["novels"]},
        root={"default": "base", "base": True, "bundles": ["poems:stable"]},
    )


@asynccontextmanager
async def serving(home: ServiceHome, **options: Any) -> AsyncIterator[Service]:
    home.publish("poems", "stable", "r1", seed=1)
    home.publish("novels", "stable", "r2", seed=2)
    if not home.policy.exists():
        write_policy(home)
    async with home.serve(openai=LISTEN, **options) as service:
        yield service


def url(service: Service) -> str:
    return f"http://127.0.0.1:{service.server.ports.openai}"


@asynccontextmanager
async def client(service: Service, tenant: str = "acme") -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url(service)}/v1", api_key=token_of(tenant), max_retries=0) as made:
        yield made


async def post(service: Service, path: str, content: object, tenant: str | None = "acme") -> httpx.Response:
    headers = {"authorization": f"Bearer {token_of(tenant)}"} if tenant else {}
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with httpx.AsyncClient(timeout=20) as http:
        return await http.post(url(service) + path, content=body, headers=headers)


async def chat(service: Service, tenant: str | None = "acme", **fields: Any) -> httpx.Response:
    return await post(service, "/v1/chat/completions", {"messages": HI, "max_tokens": 2, **fields}, tenant)


async def test_a_chat_is_answered_by_the_default_and_says_by_which_revision(home: ServiceHome) -> None:
    async with serving(home) as service, client(service) as one:
        answer = await one.chat.completions.create(model="", messages=HI, max_tokens=3)
        grpc = await service.ask("acme", max_tokens=3)
        assert answer.choices[0].message.content == grpc.text
        assert answer.system_fingerprint == grpc.revision
        assert answer.model == "poems:stable"
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 3, 5)
        raw = await chat(service, model="poems")
        assert raw.headers["x-eul-revision"] == grpc.revision
        assert raw.headers["x-request-id"] in raw.json()["id"]
        ChatCompletion.model_validate(raw.json(), strict=True)


async def test_an_answer_without_a_limit_ends_with_the_context(home: ServiceHome) -> None:
    async with serving(home) as service, client(service) as one:
        answer = await one.chat.completions.create(model="poems", messages=HI)
        assert answer.usage is not None
        assert answer.usage.total_tokens == 64  # what the fake engine's context holds


async def test_a_stream_of_two_choices(home: ServiceHome) -> None:
    write_policy(home, rights=["samples"])
    async with serving(home) as service, client(service) as one:
        stream = await one.chat.completions.create(
            model="poems", messages=HI, max_tokens=3, n=2, temperature=1, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk.model_dump())
        whole = (await service.ask("acme", max_tokens=3)).text
        choices = [choice for chunk in chunks for choice in chunk.choices]
        for index in range(2):
            own = [choice for choice in choices if choice.index == index]
            assert [choice.delta.role for choice in own] == ["assistant", None, None, None]
            assert "".join(choice.delta.content or "" for choice in own) == whole
            assert own[-1].finish_reason == "length"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 6
        assert chunks[-1].choices == []
        assert {chunk.system_fingerprint for chunk in chunks} == {(await service.ask("acme", max_tokens=1)).revision}


async def test_a_completion_with_echo_and_one_with_log_probabilities(home: ServiceHome) -> None:
    write_policy(home, rights=["echo", "logprobs"])
    async with serving(home) as service, client(service) as one:
        plain = await one.completions.create(model="poems", prompt="hi ", max_tokens=2, echo=True)
        assert plain.choices[0].text == "hi " + (await service.ask("acme", max_tokens=2)).text
        raw = await post(service, "/v1/completions", {"prompt": [[104, 105]], "logprobs": 0})
        Completion.model_validate({**raw.json(), "choices": []}, strict=True)
        (choice,) = raw.json()["choices"]
        assert choice["logprobs"]["token_logprobs"] == [-0.5] * 16  # OpenAI's own length of a completion
        assert choice["logprobs"]["tokens"][:2] == ["token_id:0", "token_id:1"]
        told = (await chat(service, logprobs=True)).json()["choices"][0]["logprobs"]["content"]
        assert [(one["token"], one["logprob"]) for one in told] == [("token_id:0", -0.5), ("token_id:1", -0.5)]
        parts = await one.completions.create(model="poems", prompt="hi ", max_tokens=2, echo=True, stream=True)
        assert "".join([part.choices[0].text async for part in parts]) == plain.choices[0].text


async def test_models_are_what_the_caller_may_name(home: ServiceHome) -> None:
    async with serving(home) as service:
        found = {}
        for tenant in ("acme", "zeta", "root"):
            async with client(service, tenant) as one:
                found[tenant] = [model.id async for model in one.models.list()]
    assert found == {"acme": ["poems:stable"], "zeta": ["novels:stable"], "root": ["poems:stable", "base"]}


RIGHTFUL: list[tuple[str, str, dict[str, Any]]] = [
    ("logprobs", "chat/completions", {"messages": HI, "logprobs": True}),
    ("logprobs", "completions", {"prompt": "hi", "logprobs": 0}),
    ("samples", "chat/completions", {"messages": HI, "n": 2}),
    ("logit_bias", "chat/completions", {"messages": HI, "logit_bias": {"5": 1.5}}),
    ("allowed_tokens", "completions", {"prompt": "hi", "allowed_token_ids": [5]}),
    ("echo", "completions", {"prompt": "hi", "echo": True}),
    ("constrained", "chat/completions", {"messages": HI, "response_format": {"type": "json_object"}}),
    ("constrained", "completions", {"prompt": "hi", "structured_outputs": {"choice": ["a", "b"]}}),
    (
        "constrained", "chat/completions",
        {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("right", "path", "fields"), RIGHTFUL)
async def test_what_reads_through_a_layer_needs_its_right(
    home: ServiceHome, right: str, path: str, fields: dict[str, Any]
) -> None:
    write_policy(home, rights=sorted(set(RIGHTS) - {right}))
    async with serving(home) as service:
        refused = await post(service, f"/v1/{path}", {"max_tokens": 2, **fields})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "refused_by_policy")
        assert f"no right '{right}'" in refused.json()["error"]["message"]
        assert service.engine.works == []
        write_policy(home, rights=[right])
        await service.server.follower.poll_policy()
        assert (await post(service, f"/v1/{path}", {"max_tokens": 2, **fields})).status_code == 200


async def test_a_schema_reaches_the_engine_as_it_was_sent(home: ServiceHome) -> None:
    write_policy(home, rights=["constrained"])
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    async with serving(home) as service:
        form = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
        assert (await chat(service, response_format=form)).status_code == 200
        constraint = service.engine.works[-1].sampling.constraint
        assert constraint is not None
        assert (constraint.kind, json.loads(constraint.texts[0])) == ("json_schema", schema)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function"}]}, "tools: not served here"),
    ({"best_of": 2}, "best_of: not served here"),
    ({"presence_penalty": 0.5}, "presence_penalty: not served here"),
    ({"top_logprobs": 5}, "top_logprobs: not served here"),
    ({"prompt_logprobs": 1}, "prompt_logprobs: not served here"),
    ({"guided_choice": ["a"]}, "guided_choice: not served here"),
    ({"use_beam_search": True}, "use_beam_search: not served here"),
    ({"chat_template": "{{ x }}"}, "chat_template: not served here"),
    ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params: not served here"),
    ({"vllm_xargs": {"a": 1}}, "vllm_xargs: not served here"),
    ({"lora_request": {"a": 1}}, "lora_request: not served here"),
    ({"temperature": 3}, "temperature: expected 0 to 2, found 3"),
    ({"temperature": "hot"}, "temperature: expected a number, found a text"),
    ({"temperature": True}, "temperature: expected a number, found true or false"),
    ({"max_tokens": 0}, "max_tokens: expected 1 to"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens: expected a whole number, found a number"),
    ({"top_p": 0}, "top_p: expected above 0 to 1, found 0"),
    ({"seed": -1}, "seed: expected 0 to"),
    ({"stop": 5}, "stop: expected a text or a list of texts, found a number"),
    ({"stop": ["a"] * 9}, "stop: expected at most 8 texts, found 9"),
    ({"logit_bias": {"a": 1}}, "logit_bias: expected numbers by token id"),
    ({"logit_bias": {"-1": 1}}, "logit_bias: expected token ids of 0 or more"),
    ({"logit_bias": {"1": 10**400}}, "logit_bias: expected numbers by token id"),
    ({"allowed_token_ids": [-1]}, "allowed_token_ids: expected a list of whole numbers, 0 or more"),
    ({"temperature": 10**400}, "temperature: expected a number of less size"),
    ({"model": 5}, "model: expected a text, found a number"),
    ({"model": "a//b"}, ""),
    ({"messages": []}, "messages: expected a list of messages, found nothing"),
    ({"messages": "hi"}, "messages: expected a list of messages, found a text"),
    ({"messages": ["hi"]}, "messages.0: expected a JSON object, found a text"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: expected system, developer, user, assistant"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "this server reads text alone"),
    ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages.0.name: not served here"),
    ({"response_format": {"type": "xml"}}, "response_format: expected type text, json_object"),
    ({"stream_options": {"continuous_usage_stats": True}}, "continuous_usage_stats: not served here"),
]


@pytest.mark.parametrize(("fields", "text"), WRONG, ids=str)
async def test_what_is_not_served_is_named(home: ServiceHome, fields: dict[str, Any], text: str) -> None:
    async with serving(home) as service:
        answer = await chat(service, **fields)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert text in error["message"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
        assert service.engine.works == []


WRONG_PROMPTS: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt: expected one prompt"),
    ({"prompt": ["a", "b"]}, "prompt: expected one prompt"),
    ({"prompt": [1, "a"]}, "prompt: expected one prompt"),
    ({"prompt": [True]}, "prompt: expected one prompt"),
    ({"prompt": "a", "logprobs": 1}, "logprobs: only those of the chosen tokens"),
    ({"prompt": "a", "logprobs": True}, "logprobs: expected a whole number"),
    ({"prompt": [1], "echo": True}, "echo: served for a prompt that is text"),
    ({"prompt": "a", "echo": True, "logprobs": 0}, "echo: served for a prompt that is text"),
    ({"prompt": "a", "suffix": "b"}, "suffix: not served here"),
]


@pytest.mark.parametrize(("fields", "text"), WRONG_PROMPTS, ids=str)
async def test_prompts_that_are_not_served(home: ServiceHome, fields: dict[str, Any], text: str) -> None:
    async with serving(home) as service:
        answer = await post(service, "/v1/completions", fields)
        assert answer.status_code == 400
        assert text in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"5", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 100_000,
        b'{"prompt": "' + b"x" * (5 << 20) + b'"}',
    ],
    ids=["empty", "cut", "list", "number", "bytes", "half a character", "deep", "long"],
)  # fmt: skip
async def test_bodies_that_are_no_request(home: ServiceHome, body: bytes) -> None:
    async with serving(home) as service:
        answer = await post(service, "/v1/completions", body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith("request: ")
        assert (await chat(service)).status_code == 200


async def test_what_asks_for_nothing_is_let_through(home: ServiceHome) -> None:
    async with serving(home) as service:
        nothing = {
            "n": 1, "tools": [], "tool_choice": "none", "presence_penalty": 0.0, "frequency_penalty": 0, "stop": None,
            "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "response_format": {"type": "text"}, "user": "ann",
            "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "top_k": -1, "stream": False,
        }  # fmt: skip
        parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
        messages = [{"role": "developer", "content": parts, "tool_calls": []}]
        assert (await chat(service, messages=messages, **nothing)).status_code == 200
        assert service.engine.works[-1].token_ids == tuple(b"hi")


async def test_a_salt_of_the_caller_s_is_dropped(home: ServiceHome) -> None:
    async with serving(home) as service:
        await chat(service)
        await chat(service, cache_salt="mine")
        first, second = service.engine.works
        assert first.salt == second.salt != "mine"


async def test_unknown_and_forbidden_adapters_are_the_same(home: ServiceHome) -> None:
    async with serving(home) as service:
        answers = [await chat(service, model=name) for name in ("base", "novels", "novels:stable", "nowhere", "x:y")]
        assert {answer.status_code for answer in answers} == {403}
        assert len({answer.text for answer in answers}) == 1


async def test_callers_that_nobody_knows(home: ServiceHome) -> None:
    async with serving(home) as service:
        for path in ("/v1/models", "/v1/chat/completions", "/nothing", "/metrics"):
            answer = await post(service, path, {}, tenant=None)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (await chat(service, "stranger")).json()["error"]["type"] == "authentication_error"
        async with httpx.AsyncClient() as http:
            twice = [("authorization", f"Bearer {token_of('acme')}"), ("authorization", f"Bearer {token_of('zeta')}")]
            assert (await http.get(f"{url(service)}/v1/models", headers=twice)).status_code == 401
        assert service.engine.works == []
        assert service.sample("eul_policy_denials_total", reason="identity") == 6


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/", "//v1/models", "/v1/../v1/models", "/v1/models/poems", "/V1/models", "/v1/load_lora_adapter",
        "/v1/embeddings", "/tokenize", "/metrics", "/docs", "/openapi.json", "/v1/responses", "/pooling", "/",
    ],
)  # fmt: skip
async def test_there_are_no_other_routes(home: ServiceHome, path: str) -> None:
    async with serving(home) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.ports.openai)
        for method in ("GET", "POST"):  # by hand: a client would tidy the path up
            lines = (
                f"{method} {path} HTTP/1.1",
                "host: x",
                f"authorization: Bearer {token_of('acme')}",
                "content-length: 0",
            )
            writer.write("\r\n".join((*lines, "", "")).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 404 "), head
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            assert b"there are POST /v1/chat/completions" in await reader.readexactly(length)
            if b"connection: close" in head.lower():
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", service.server.ports.openai)
        writer.close()


async def test_health_needs_no_secret_and_follows_the_drain(home: ServiceHome) -> None:
    home.appoint()
    async with serving(home, admin=LISTEN) as service, httpx.AsyncClient() as http:
        assert (await http.get(f"{url(service)}/health")).status_code == 200

        def drain() -> None:
            with service.admin() as admin:
                admin.drain("for the test")

        await asyncio.to_thread(drain)
        assert (await http.get(f"{url(service)}/health")).status_code == 503
        assert (await chat(service)).status_code == 503


async def test_a_caller_who_leaves_stops_the_work(home: ServiceHome) -> None:
    async with serving(home, engine=FakeEngine(home.fingerprint, step=0.02)) as service:
        async with client(service) as one:
            stream = await one.chat.completions.create(model="poems", messages=HI, stream=True)
            await anext(aiter(stream))
            await stream.close()
            await service.until(lambda: len(service.engine.aborted) == 1, "the abort of a stream")
        waiting = asyncio.create_task(chat(service, max_tokens=60))
        await service.until(lambda: len(service.engine.works) == 2, "the second request")
        waiting.cancel()
        await service.until(lambda: len(service.engine.aborted) == 2, "the abort of a request")
        assert service.sample("eul_requests_total", method="ChatCompletions", code="CANCELLED") == 2
        await service.until(lambda: service.sample("eul_in_flight_requests") == 0, "the end of both")


async def test_a_right_that_is_withdrawn_ends_a_stream_with_an_error(home: ServiceHome) -> None:
    async with serving(home, engine=FakeEngine(home.fingerprint, step=0.02)) as service, client(service) as one:
        stream = await one.chat.completions.create(model="poems", messages=HI, stream=True)
        parts = aiter(stream)
        await anext(parts)
        write_policy(home, bundles=[], default="base", base=True)
        with pytest.raises(openai.APIError, match="withdrawn while the request ran"):
            async for _ in parts:
                pass
        assert len(service.engine.aborted) == 1


async def test_a_full_server_says_when_to_come_again(home: ServiceHome) -> None:
    write_policy(home, requests_per_minute=2)
    async with serving(home) as service:
        answers = [await chat(service) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert answers[-1].json()["error"]["type"] == "rate_limit_error"


async def test_a_dead_engine_and_an_unexpected_failure(home: ServiceHome) -> None:
    async with serving(home) as service:
        service.server.failed.add_done_callback(lambda found: found.exception())
        service.engine.broken = RuntimeError("the prompt was: a secret")
        answer = await chat(service)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
        service.engine.broken = EngineError("the engine died")
        assert (await chat(service)).status_code == 503
        service.engine.broken, service.engine.finish = None, "abort"
        assert (await chat(service)).status_code == 503
        broken = await chat(service, stream=True)
        assert broken.status_code == 200
        assert '"code": "not_served_now"' in broken.text
        assert "[DONE]" not in broken.text


async def test_a_call_is_counted_and_timed_as_those_of_grpc_are(home: ServiceHome) -> None:
    async with serving(home) as service:
        await chat(service)
        await chat(service, model="base")
        for code in ("OK", "PERMISSION_DENIED"):
            assert service.sample("eul_requests_total", method="ChatCompletions", code=code) == 1
        assert service.sample("eul_request_duration_seconds_count", method="ChatCompletions") == 2
        assert service.sample("eul_tokens_total", kind="completion") == 2
