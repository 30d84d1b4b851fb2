"""The typed client and its commands against a server on the fake engine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from eul_serve.client import Client, Settings
from eul_serve.client.failure import rpc_errors
from eul_serve.errors import EngineError, EulError, InputError
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import Service, ServiceHome, token_of

MAIN = "from eul_serve.cli.main import main; main()"


@pytest.fixture
async def service(home: ServiceHome) -> AsyncIterator[Service]:
    home.publish("poems", "stable", seed=1)
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"], "rights": ["logprobs"]})
    async with home.serve(FakeEngine(home.fingerprint, step=0.01)) as running:
        yield running


async def eul(service: Service, *words: str, token: str = token_of("acme"), stdin: str = "") -> Any:
    """Run a command line in a process of its own."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", MAIN, *words, "--server", service.address],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=60,
            env={**os.environ, "EUL_TOKEN": token},
        )

    return await asyncio.get_running_loop().run_in_executor(None, run)


async def test_generate_prints_the_answer_and_tells_the_revision_beside_it(service: Service, home: ServiceHome) -> None:
    revision = home.registry.alias("poems", "stable").revision
    done = await eul(service, "generate", "hello", "--max-tokens", "2")
    assert done.returncode == 0
    assert done.stdout == f"{revision[7:11]} {revision[7:11]} \n"
    assert done.stderr == f"[{revision}, 5 + 2 tokens, length]\n"
    done = await eul(service, "generate", "hello", "--max-tokens", "2", "--stream")
    assert done.stdout == f"{revision[7:11]} {revision[7:11]} \n"
    assert done.stderr.endswith("5 + 2 tokens, length]\n")


async def test_generate_as_json(service: Service) -> None:
    done = await eul(service, "generate", "-", "--json", "--logprobs", "--max-tokens", "2", "--seed", "7", stdin="hey")
    answer = json.loads(done.stdout)
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}
    assert answer["logprobs"] == [-0.5, -0.5]
    done = await eul(service, "generate", "--chat", "--system", "be brief", "hey", "--json", "--stream")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["text"] == ""
    assert lines[-1]["finish_reason"] == "length"


async def test_classify_and_health(service: Service, tmp_path: Path) -> None:
    done = await eul(service, "classify", "It was", "--label", " good", "--label", " bad")
    assert done.stdout.splitlines()[0] == " bad"
    assert "0.7311" in done.stdout  # 1 / (1 + e**-1)
    file = tmp_path / "token"
    file.write_text(token_of("acme") + "\n")
    done = await eul(
        service, "classify", "It was", "--label", "a", "--label", "b", "--json", "--token-file", str(file), token=""
    )
    assert set(json.loads(done.stdout)["probabilities"]) == {"a", "b"}
    for words in (["health"], ["health", "--live"]):
        assert (await eul(service, *words, token="")).stdout == "serving\n"
    assert json.loads((await eul(service, "health", "--json")).stdout) == {"serving": True}


@pytest.mark.parametrize(
    ("words", "token", "status", "text"),
    [
        (["generate", "x"], "", 5, "SERVER: no bearer token"),
        (["generate", "x"], "", 5, "EUL_TOKEN or --token-file"),
        (["generate", "x", "--stream"], "", 5, "SERVER: no bearer token"),
        (["classify", "x", "--label", "a", "--label", "b"], "", 5, "SERVER: no bearer token"),
        (["generate", "x"], "wrong", 5, "SERVER: unknown bearer token; ask"),
        (["generate", "x", "--stream"], "wrong", 5, "SERVER: unknown bearer token"),
        (["classify", "x", "--label", "a", "--label", "b"], "wrong", 5, "SERVER: unknown bearer token"),
        (["generate", "x"], "wr\u00f6ng", 2, "token: expected printable ASCII"),
        (["generate", "x"], "wrong\nwrong", 2, "token: expected printable ASCII"),
        (["health", "--tls", "--timeout", "20"], "", 7, "SERVER: not reachable"),
        (["health", "--ca-cert", __file__], "", 2, "expected PEM"),
        (["generate", "x", "--max-tokens", "60", "--timeout", "0.3"], token_of("acme"), 7, "SERVER: no answer in time"),
        (["generate", "x", "--adapter", "novels"], token_of("acme"), 5, "no such adapter"),
        (["generate", "x", "--adapter", ".."], token_of("acme"), 2, "bundle name"),
        (["generate", "x" * 64], token_of("acme"), 2, "64 tokens"),
        (["generate", "x", "--max-tokens", "-1"], token_of("acme"), 2, "sampling"),
        (["generate", "x", "--system", "y"], token_of("acme"), 2, "--chat"),
        (["generate", "x", "--timeout", "0"], token_of("acme"), 2, "--timeout"),
        (["generate", "x", "--token-file", "missing"], "", 2, "cannot read"),
        (["generate", "x", "--ca-cert", "missing"], token_of("acme"), 2, "cannot read"),
        (["classify", "x", "--label", "a"], token_of("acme"), 2, "labels"),
        (["classify", "x"], token_of("acme"), 2, "--label"),
    ],
)
async def test_errors_are_one_line_and_a_status(
    service: Service, words: list[str], token: str, status: int, text: str
) -> None:
    done = await eul(service, *words, token=token)
    assert (done.returncode, done.stdout) == (status, "")
    assert len(done.stderr.splitlines()) == 1
    assert text.replace("SERVER", f"server {service.address}") in done.stderr
    assert "wrong" not in done.stderr


@pytest.mark.parametrize(
    "words", [["health"], ["generate", "x"], ["generate", "x", "--stream"], ["classify", "x", "--label", "a"]]
)
def test_the_commands_without_a_server_name_the_address_and_the_next_step(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words, "--server", "127.0.0.1:1"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "EUL_TOKEN": "token"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, "")
    line = (
        "eul: server 127.0.0.1:1: not reachable (Connection refused); start it with `eul serve`, or check the address"
    )
    assert done.stderr == f"{line} and TLS\n"


def test_a_certificate_file_without_a_certificate(tmp_path: Path) -> None:
    for data in (b"", b"-----BEGIN CERTIFICATE-----\n", bytes(range(256))):
        (tmp_path / "ca.pem").write_bytes(data)
        with pytest.raises(InputError, match=r"ca\.pem.*expected PEM"):
            Client("127.0.0.1:1", settings=Settings(ca_certificate=tmp_path / "ca.pem"))


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with Client("127.0.0.1:1", "token") as client, pytest.raises(EngineError, match=r"127\.0\.0\.1:1: not reachable"):
        client.generate("x")
    with Client("127.0.0.1:1") as client, pytest.raises(EngineError, match="not reachable"):
        client.health()


def test_a_token_never_leaves_in_plaintext_unless_asked() -> None:
    with pytest.raises(InputError, match="plaintext"):
        Client("example.org:443", "token")
    for settings in (Settings(tls=True), Settings(insecure=True)):
        Client("example.org:443", "token", settings=settings).close()
    Client("example.org:443").close()
    assert "hidden" not in repr(Settings(token="hidden"))


@pytest.mark.parametrize("prompt", [[("stranger", "x")], [1, ("user", "x")]])
def test_prompts_that_are_none(prompt: Any) -> None:
    with Client("127.0.0.1:1", "t") as client, pytest.raises(InputError):
        client.generate(prompt)


@pytest.mark.parametrize("sampling", [{"max_tokens": -1}, {"max_tokens": "x"}, {"unknown": 1}])
def test_sampling_that_is_none(sampling: dict[str, Any]) -> None:
    with Client("127.0.0.1:1", "t") as client, pytest.raises(InputError, match="sampling"):
        client.generate("x", **sampling)


class Failed(grpc.RpcError):
    """A failed call, as grpc raises it."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DATA_LOSS

    def details(self) -> str:
        return ""

    def trailing_metadata(self) -> None:
        return None


def test_a_status_that_is_not_ours_keeps_its_name() -> None:
    with pytest.raises(EulError, match=r"here:1: DATA_LOSS"), rpc_errors("here:1"):
        raise Failed


def test_the_client_needs_neither_torch_nor_vllm_nor_the_server() -> None:
    code = (
        "import sys, eul_serve.client; "
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'vllm', 'prometheus_client') "
        "or name.startswith(('eul_serve.rpc', 'eul_serve.swap', 'eul_serve.policy', 'eul_serve.registry'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
