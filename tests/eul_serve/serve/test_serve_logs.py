"""What a server writes while it works: revisions and reasons, and never a prompt, an answer or a token."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from eul_serve.client import Client
from eul_serve.errors import EulError
from tests.eul_serve.service_home import ServiceHome, token_of

SECRET = "Zaphod Beeblebrox"
STRANGER = "stranger-with-a-wrong-token"
ACME = {"default": "poems:stable", "bundles": ["poems"]}


def ask_in_every_way(client: Client, adapter: str = "") -> int:
    """Send the secret by every method, in every form; return how many calls failed."""
    calls: tuple[Callable[[], Any], ...] = (
        lambda: client.generate(f"who is {SECRET}", adapter=adapter, max_tokens=1, stop=[SECRET]),
        lambda: client.generate([("system", SECRET), ("user", SECRET)], adapter=adapter, max_tokens=1),
        lambda: client.generate(list(SECRET.encode()), adapter=adapter, max_tokens=1),
        lambda: list(client.generate_stream(SECRET, adapter=adapter, max_tokens=1)),
        lambda: client.classify(SECRET, [f"{SECRET} a", f"{SECRET} b"], adapter=adapter),
    )
    failed = 0
    for call in calls:
        try:
            call()
        except EulError:
            failed += 1
    return failed


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        return response.read().decode()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited 30 seconds in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("form", ["text", "json"])
def test_neither_prompts_nor_tokens_are_written(home: ServiceHome, start_fake: Any, form: str) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    second = home.publish("poems", None, "r1", "r2", seed=2)
    home.write_policy(acme=dict(ACME))
    with start_fake(LOG_FORMAT=form) as process:
        with Client(process.listen, token_of("acme")) as client:
            assert ask_in_every_way(client) == 0
            assert ask_in_every_way(client, adapter="novels") == 5
            assert ask_in_every_way(client, adapter=f"../{SECRET}") == 5
            for prompt in (f"fail on {SECRET}", SECRET * 100):
                with suppress(EulError):
                    client.generate(prompt)
                with suppress(EulError):
                    list(client.generate_stream(prompt))
            home.registry.promote("poems", second, "stable")
            until(lambda: client.generate(SECRET, max_tokens=1).revision == second)
        with Client(process.listen, STRANGER) as client:
            assert ask_in_every_way(client) == 5
        part = home.policy.with_suffix(".part")  # replaced in one step, so that no poll sees half of it
        part.write_text(f'[tenants.acme]\ntoken_sha256 = ["{token_of("acme")}"]\n')  # a token in its hash's place
        part.replace(home.policy)
        until(lambda: 'eul_policy_loads_total{outcome="refused"} 1.0' in scrape(process.metrics))
        assert process.stop() == 0
        text = process.popen.stdout.read() + process.popen.stderr.read()
    for told in (
        f"poems:stable is served by {second}",
        "failed unexpectedly: RuntimeError",
        "the policy in force stays",
    ):
        assert told in text, "the log is not what this test takes it for"
    for secret in (SECRET, SECRET.split()[0], str(list(SECRET.encode()))[1:-1], token_of("acme"), STRANGER):
        assert secret not in text


def test_each_call_is_one_json_line(home: ServiceHome, start_fake: Any) -> None:
    revision = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME), zeta={"bundles": []})
    with start_fake(LOG_FORMAT="json") as process:
        with Client(process.listen, token_of("acme")) as client:
            client.generate(SECRET, max_tokens=3)
            list(client.generate_stream(SECRET, max_tokens=2))
            with pytest.raises(EulError):
                client.generate(SECRET, adapter="novels")
        with Client(process.listen, token_of("zeta")) as client, pytest.raises(EulError):
            client.generate(SECRET)
        assert process.stop() == 0
        lines = [json.loads(line) for line in process.popen.stderr.read().splitlines()]
    calls = [line for line in lines if line["logger"] == "eul_serve.calls"]
    told = [(line["method"], line["code"], line["decision"], line["completion_tokens"]) for line in calls]
    assert told == [
        ("Generate", "OK", "served", 3),
        ("GenerateStream", "OK", "served", 2),
        ("Generate", "PERMISSION_DENIED", "refused_by_policy", 0),
        ("Generate", "PERMISSION_DENIED", "refused_by_policy", 0),
    ]
    assert [line["revision"] for line in calls] == [revision, revision, "", ""]
    assert [line["prompt_tokens"] for line in calls] == [len(SECRET), len(SECRET), 0, 0]
    tags = [line["tenant"] for line in calls]
    assert tags[0] == tags[1] == tags[2] != tags[3]
    assert "acme" not in "".join(tags)
    assert len({line["request_id"] for line in calls}) == 4
    assert all(line["level"] and line["at"].endswith("+00:00") for line in lines)
