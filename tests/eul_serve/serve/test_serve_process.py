"""A server's life as a process, on the fake engine: signals, kills, ports, the metrics port."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import urllib.request
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from eul_serve.address import Address
from eul_serve.client import Client
from eul_serve.errors import CapacityError, EngineError, EulError, InputError
from eul_serve.rpc.transport import TransportSettings
from eul_serve.serve.key import server_key
from eul_serve.serve.run import check_free, serve, write_whole
from eul_serve.swap.leases import LeaseLimits
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import ServiceHome, settings_at, token_of

ACME = {"default": "poems:stable", "bundles": ["poems"]}


def ask(address: str, **options: Any) -> Any:
    with Client(address, token_of("acme")) as client:
        return client.generate("hi", **{"max_tokens": 2, **options})


def test_a_termination_lets_requests_finish_and_leaves_with_0(home: ServiceHome, start_fake: Any) -> None:
    home.publish("poems", "stable", seed=1)
    home.write_policy(acme=dict(ACME))
    with start_fake() as process:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(ask(process.listen, max_tokens=80)))
        with Client(process.listen) as client:
            assert client.health()
            assert client.health("")
        thread.start()
        while "eul_in_flight_requests 1.0" not in scrape(process.metrics):
            time.sleep(0.01)
        assert process.stop() == 0
        thread.join()
        assert answers[0].finish_reason == "length"
        with pytest.raises(EngineError, match="not reachable"):
            ask(process.listen)
        told = json.loads(process.popen.stdout.read())
        assert told == {"listen": process.listen, "metrics": process.metrics, "model": "fake"}


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        return response.read().decode()


def test_the_metrics_port_has_every_name_that_the_page_lists(home: ServiceHome, start_fake: Any) -> None:
    home.publish("poems", "stable", seed=1)
    home.write_policy(acme=dict(ACME))
    with start_fake() as process:
        ask(process.listen)
        text = scrape(process.metrics)
        for name in (
            'eul_requests_total{code="OK",method="Generate"} 1.0',
            "eul_time_to_first_token_seconds_count 1.0",
            'eul_inter_token_latency_seconds_bucket{le="0.0025"}',
            'eul_swap_duration_seconds_count{stage="pull"} 1.0',
            'eul_swap_duration_seconds_count{stage="load"} 1.0',
            'eul_revisions{stage="active"} 1.0',
            'eul_tokens_total{kind="completion"} 2.0',
            "eul_build_info{",
            "# TYPE eul_policy_denials_total counter",
            "# TYPE eul_verification_failures_total counter",
        ):
            assert name in text, name
        assert "acme" not in text  # whoever scrapes learns nothing of tenants
        assert process.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3])
def test_a_server_killed_while_swapping_comes_up_clean(home: ServiceHome, start_fake: Any, delay: float) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    second = home.publish("poems", None, "r1", "r2", seed=2)
    home.write_policy(acme=dict(ACME))
    with start_fake(0.2) as process:
        assert ask(process.listen).revision == first
        home.registry.promote("poems", second, "stable")
        time.sleep(delay)
        assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    with start_fake() as process:
        assert ask(process.listen).revision == second
        assert process.stop() == 0
    assert not list((home.cache / "tmp").iterdir())
    kept = sorted(path.name for path in (home.cache / "sha256").iterdir())
    assert kept == sorted(revision.removeprefix("sha256:") for revision in (first, second))


async def start_nothing(_: object) -> FakeEngine:
    raise AssertionError("the engine must not be started")


async def test_a_taken_port_is_told_before_the_engine_starts(home: ServiceHome) -> None:
    home.write_policy(acme=dict(ACME))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(InputError, match="cannot listen"):
            check_free(address)
        settings = settings_at(home.root, transport=TransportSettings(listen=address))
        with pytest.raises(InputError, match=str(address)):
            await serve(settings, start_nothing, lambda ready: None, CollectorRegistry())


async def test_a_missing_policy_is_told_before_the_engine_starts(home: ServiceHome) -> None:
    with pytest.raises(InputError, match=r"policy\.toml"):
        await serve(settings_at(home.root), start_nothing, lambda ready: None, CollectorRegistry())


async def test_texts_that_cannot_be_read_are_told_before_the_engine_starts(home: ServiceHome) -> None:
    home.write_policy(acme=dict(ACME))
    settings = settings_at(home.root, canaries=home.root / "none.jsonl")
    with pytest.raises(InputError, match=r"canaries .*none\.jsonl.*No such file"):
        await serve(settings, start_nothing, lambda ready: None, CollectorRegistry())


async def test_a_dead_engine_ends_the_server(home: ServiceHome) -> None:
    home.write_policy(acme=dict(ACME))
    engine = FakeEngine(home.fingerprint)

    async def start(_: object) -> FakeEngine:
        return engine

    def die(ready: object) -> None:
        engine.broken = EngineError("the engine is dead")

    with pytest.raises(EngineError, match="is dead"):
        await serve(settings_at(home.root), start, die, CollectorRegistry())
    assert engine.closed


def test_a_key_file(tmp_path: Any) -> None:
    assert server_key(None) != server_key(None)
    path = tmp_path / "key"
    with pytest.raises(InputError, match="cannot read"):
        server_key(path)
    path.write_text("short\n")
    with pytest.raises(InputError, match="16 bytes or more"):
        server_key(path)
    path.write_text("x" * 32 + "\n")
    assert server_key(path) == b"x" * 32


def test_a_ready_file_is_whole_or_not_there(tmp_path: Any) -> None:
    write_whole(tmp_path / "ready", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]
    with pytest.raises(CapacityError, match="cannot write"):
        write_whole(tmp_path / "missing" / "ready", "text")


@pytest.mark.parametrize(
    "options",
    [
        {"poll_seconds": 0.0},
        {"poll_seconds": float("nan")},
        {"grace_seconds": -1.0},
        {"deadline_seconds": 1e9},
        {"limits": LeaseLimits(total=0)},
    ],
)
def test_settings_out_of_range(home: ServiceHome, options: dict[str, Any]) -> None:
    with pytest.raises(EulError, match="expected"):
        settings_at(home.root, **options)
