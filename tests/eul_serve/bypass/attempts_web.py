"""Attempts over HTTP: the OpenAI-compatible endpoint and the status page, by the defence that stops them."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.eul_serve.bypass import defences
from tests.eul_serve.bypass.arena import Arena, Attempt
from tests.eul_serve.service_home import token_of

Send = Callable[[Arena], Awaitable[bool]]
ASK: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    "/v1/completions": {"prompt": "hi", "max_tokens": 2},
}
CHAT, COMPLETE = ASK
GOOD = token_of("acme")


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def basic(password: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", "Basic " + base64.b64encode(f"ana:{password}".encode()).decode()),)


async def posted(
    arena: Arena, path: str, fields: dict[str, Any], headers: tuple[tuple[str, str], ...] = bearer(GOOD)
) -> httpx.Response:
    body = {**ASK[path.partition("?")[0]], **fields}
    async with httpx.AsyncClient(timeout=20) as client:
        url = f"http://127.0.0.1:{arena.service.server.ports.openai}{path}"
        return await client.post(url, json=body, headers=list(headers))


def adapter_named(path: str, name: str) -> Send:
    """Ask by an adapter; whatever but the one that acme may use answers is a hole."""

    async def send(arena: Arena) -> bool:
        answer = await posted(arena, path, {"model": name.format(**arena.revisions)})
        return answer.is_success and answer.json()["system_fingerprint"] != arena.revisions["stable"]

    return send


def with_field(path: str, **fields: Any) -> Send:
    async def send(arena: Arena) -> bool:
        return (await posted(arena, path, fields)).is_success

    return send


def streamed_field(path: str, **fields: Any) -> Send:
    async def send(arena: Arena) -> bool:
        return "[DONE]" in (await posted(arena, path, {**fields, "stream": True})).text

    return send


def with_headers(*headers: tuple[str, str], path: str = CHAT) -> Send:
    async def send(arena: Arena) -> bool:
        return (await posted(arena, path, {}, headers)).is_success

    return send


BY_NAME = [
    Attempt(name=f"http {path} {name}", send=adapter_named(path, name), off=defences.no_policy)
    for name in ("base", "novels", "novels@{novels}", "poems@{old}")
    for path in ASK
]
PATHS = [
    Attempt(name=f"http path {name!r}", send=adapter_named(CHAT, name), off=defences.names_are_paths)
    for name in ("../novels", "poems/../novels", "poems\x00novels")
]
READING: dict[str, tuple[str, dict[str, Any]]] = {
    "log-probabilities": (CHAT, {"logprobs": True}),
    "a completion's log-probabilities": (COMPLETE, {"logprobs": 0}),
    "an echo": (COMPLETE, {"echo": True}),
    "a bias": (CHAT, {"logit_bias": {"7": 100}}),
    "allowed tokens": (COMPLETE, {"allowed_token_ids": [7]}),
    "several answers": (CHAT, {"n": 8}),
    "a schema": (CHAT, {"response_format": {"type": "json_object"}}),
    "a choice": (CHAT, {"structured_outputs": {"choice": ["Zaphod", "Arthur"]}}),
}
RIGHTS = [
    Attempt(name=f"http {way} {name}", send=send(path, **fields), off=defences.no_rights)
    for name, (path, fields) in READING.items()
    for way, send in (("ask for", with_field), ("stream", streamed_field))
]
UNSERVED: dict[str, dict[str, Any]] = {
    "the prompt's log-probabilities": {"prompt_logprobs": 5},
    "other tokens' log-probabilities": {"top_logprobs": 20},
    "beams": {"use_beam_search": True},
    "the best of many": {"best_of": 8},
    "a processor of logits": {"logits_processors": ["my.module"]},
    "a template of one's own": {"chat_template": "{{ messages }}"},
    "another's cache": {"kv_transfer_params": {"do_remote_prefill": True}},
    "hidden states": {"return_hidden_states": True},
    "a better priority": {"priority": -100},
}
FIELDS = [
    Attempt(name=f"http field for {name}", send=with_field(CHAT, **fields), off=defences.every_field)
    for name, fields in UNSERVED.items()
]
STRANGERS = [
    Attempt(name=f"http {name}", send=send, off=defences.any_web_caller)
    for name, send in {
        "no token": with_headers(),
        "a wrong token": with_headers(*bearer("wrong")),
        "two tokens": with_headers(*bearer(GOOD), *bearer("other")),
        "a token of another scheme": with_headers(*basic(GOOD)),
        "a token of a proxy": with_headers(("proxy-authorization", f"Bearer {GOOD}")),
        "a token in a cookie": with_headers(("cookie", f"authorization={GOOD}")),
        "a token in the address": with_headers(path=f"{CHAT}?api_key={GOOD}"),
        "a key of another service": with_headers(("api-key", GOOD), ("x-api-key", GOOD)),
        "an administrator's token": with_headers(*bearer("token-of-ana")),
    }.items()
]


async def a_salt_in_the_body(arena: Arena) -> bool:
    for token in (token_of("root"), GOOD):
        await posted(arena, CHAT, {"model": "poems:stable", "cache_salt": "known"}, bearer(token))
    salts = [work.salt for work in arena.service.engine.works]
    return len(set(salts)) < 2 or "known" in salts


async def everybody_s_models(arena: Arena) -> bool:
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{arena.service.server.ports.openai}/v1/models"
        found = (await client.get(url, headers=list(bearer(GOOD)))).json()
    return [one["id"] for one in found["data"]] != ["poems:stable"]


async def a_stream_without_its_token(arena: Arena) -> bool:
    url = f"http://127.0.0.1:{arena.service.server.ports.openai}{CHAT}"
    body = {**ASK[CHAT], "max_tokens": 60, "stream": True}
    async with (
        httpx.AsyncClient(timeout=20) as client,
        client.stream("POST", url, json=body, headers=list(bearer(GOOD))) as answer,
    ):
        lines = answer.aiter_lines()
        json.loads((await anext(lines)).removeprefix("data: "))
        arena.policy(tokens=[])
        return "data: [DONE]" in [line async for line in lines]


OTHERS = [
    Attempt(name="http a salt of one's own", send=a_salt_in_the_body, off=defences.no_salts),
    Attempt(name="http a list of all models", send=everybody_s_models, off=defences.no_filter),
    Attempt(name="http go on without a token", send=a_stream_without_its_token, off=defences.no_rechecks),
]


def page(path: str, *headers: tuple[str, str]) -> Send:
    async def send(arena: Arena) -> bool:
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{arena.service.server.ports.page}{path}"
            return (await client.get(url, headers=list(headers))).is_success

    return send


PAGES = [
    Attempt(name=f"the status page {name}", send=page("/status.json", *headers), off=defences.no_administrators)
    for name, headers in {
        "without a credential": (),
        "with a tenant's token": bearer(GOOD),
        "with a tenant's token as password": basic(GOOD),
        "with an empty password": basic(""),
    }.items()
]
ATTEMPTS = [*BY_NAME, *PATHS, *RIGHTS, *FIELDS, *STRANGERS, *OTHERS, *PAGES]
