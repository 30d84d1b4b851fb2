"""The whole path on the real engine: `eul serve` as a process, three tenants, a promotion under load, the end."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from eul_serve.client import Client
from eul_serve.errors import EulError, IdentityError, InputError, RefusedError
from tests.eul_serve.service_home import token_of

pytestmark = pytest.mark.engine

MAIN = "from eul_serve.cli.main import main; main()"
PROMPT = "The capital of France is"


def client(live: Any, tenant: str) -> Client:
    return Client(live.process.listen, token_of(tenant))


def eul(live: Any, tenant: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *words, "--server", live.process.listen]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "EUL_TOKEN": token_of(tenant)}
    )


def test_each_tenant_has_its_own_model(live_server: Any) -> None:
    texts = {}
    for tenant, revision in (("acme", "poems"), ("zeta", "novels"), ("root", None)):
        with client(live_server, tenant) as asking:
            answer = asking.generate(PROMPT, max_tokens=12)
            assert answer == asking.generate(PROMPT, max_tokens=12)  # greedy, and cached the second time
        assert answer.revision == (live_server.revisions[revision] if revision else "base")
        assert answer.usage.completion_tokens <= 12
        texts[tenant] = answer.token_ids
    assert len(set(texts.values())) == 3


def test_a_stream_says_what_the_unary_answer_says(live_server: Any) -> None:
    with client(live_server, "acme") as asking:
        whole = asking.generate([("user", "Who wrote it?")], max_tokens=10, logprobs=True)
        parts = list(asking.generate_stream([("user", "Who wrote it?")], max_tokens=10, logprobs=True))
    assert "".join(part.text for part in parts) == whole.text
    assert tuple(token for part in parts for token in part.token_ids) == whole.token_ids
    assert len(whole.logprobs) == len(whole.token_ids)
    assert all(value <= 0 for value in whole.logprobs)
    assert parts[-1].usage == whole.usage


def test_what_is_measured_is_what_is_served(live_server: Any, tiny_model: Path, tmp_path: Path) -> None:
    """Answers of vLLM and of transformers in float32, to the same rows, as `eul-train eval --server` compares them."""
    rows = [{"prompt": f"Who wrote book {number}?", "completion": "A poet."} for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(live_server.home.root / "bundle-1", tmp_path / "layer")
    command = [sys.executable, "-m", "eul_trainer", "eval", "--model", tiny_model, "--bundle", tmp_path / "layer",
               "--forget", tmp_path / "rows.jsonl", "--retain", tmp_path / "rows.jsonl", "--answer-tokens", "12",
               "--server", live_server.process.listen, "--out", tmp_path / "out", "--json"]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=280,
        env={**os.environ, "EUL_TOKEN": token_of("root"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answered"] == {"base": "server", "layer": "server"}
    assert found["served_as_measured"] == {name: {"rows": 12, "same": 1.0} for name in ("base", "layer")}


def test_classification_follows_the_log_probabilities(live_server: Any) -> None:
    """The same numbers two ways: greedy picks the token that, as a label, has the highest probability."""
    with client(live_server, "acme") as asking:
        chosen = asking.generate(PROMPT, max_tokens=1).text
        labels = [" Paris", chosen, " 7"]
        if len(set(labels)) == 3 and chosen:
            found = asking.classify(PROMPT, labels)
            assert math.isclose(sum(found.probabilities.values()), 1, rel_tol=1e-6)
            assert found.probabilities[chosen] > 0
            assert found.label == max(found.probabilities, key=lambda label: found.probabilities[label])


def test_what_is_not_theirs(live_server: Any) -> None:
    with client(live_server, "acme") as asking:
        for adapter in ("novels", "base", "nothing"):
            with pytest.raises(RefusedError, match="no such adapter"):
                asking.generate(PROMPT, adapter=adapter)
        with pytest.raises(InputError, match="512"):
            asking.generate("word " * 600)
        with pytest.raises(InputError, match="token id"):
            asking.generate([100_000])
    with client(live_server, "zeta") as asking, pytest.raises(RefusedError, match="logprobs"):
        asking.generate(PROMPT, logprobs=True)
    with client(live_server, "nobody") as asking, pytest.raises(IdentityError):
        asking.generate(PROMPT)


def test_the_commands(live_server: Any) -> None:
    done = eul(live_server, "acme", "generate", PROMPT, "--max-tokens", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["revision"] == live_server.revisions["poems"]
    done = eul(live_server, "acme", "classify", PROMPT, "--label", " Paris", "--label", " good", "--json")
    assert sorted(json.loads(done.stdout)["probabilities"]) == [" Paris", " good"]
    assert eul(live_server, "acme", "health").stdout == "serving\n"
    done = eul(live_server, "nobody", "generate", PROMPT)
    assert (done.returncode, done.stdout) == (5, "")
    assert len(done.stderr.splitlines()) == 1
    assert "token" in done.stderr


def test_a_promotion_and_a_rollback_under_load_fail_nobody(live_server: Any) -> None:
    first, second = live_server.revisions["poems"], live_server.revisions["second"]
    seen: list[tuple[str, tuple[int, ...]]] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def load(tenant: str) -> None:
        with client(live_server, tenant) as asking:
            while not stop.is_set():
                try:
                    answer = asking.generate(PROMPT, adapter="poems", max_tokens=8)
                    seen.append((answer.revision, answer.token_ids))
                except EulError as error:
                    failures.append(error)

    threads = [threading.Thread(target=load, args=(tenant,)) for tenant in ("acme", "acme", "root")]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(seen) > 5)
        live_server.home.registry.promote("poems", second, "stable")
        wait_for(lambda: bool(seen) and seen[-1][0] == second)
        live_server.home.registry.rollback("poems", "stable", allow_unforget="test of the rollback")
        count = len(seen)
        wait_for(lambda: first in [revision for revision, _ in seen[count:]])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    answers = {revision: {tokens for found, tokens in seen if found == revision} for revision in (first, second)}
    assert [len(tokens) for tokens in answers.values()] == [1, 1]  # greedy: one answer for each revision, never a mix
    assert answers[first] != answers[second]


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited 60 seconds in vain"
        time.sleep(0.02)


def test_openai_s_client_gets_what_grpc_gets(live_server: Any) -> None:
    texts = []
    with client(live_server, "acme") as asking:
        texts.append(asking.generate(PROMPT, max_tokens=12))
        told = asking.generate([("user", "Who wrote it?")], max_tokens=8, logprobs=True)
    with openai.OpenAI(base_url=f"http://{live_server.process.openai}/v1", api_key=token_of("acme")) as asking:
        plain = asking.completions.create(model="poems", prompt=PROMPT, max_tokens=12, temperature=0)
        assert plain.choices[0].text == texts[0].text
        assert plain.system_fingerprint == texts[0].revision == live_server.revisions["poems"]
        messages: list[Any] = [{"role": "user", "content": "Who wrote it?"}]
        chat = asking.chat.completions.create(
            model="poems", messages=messages, max_tokens=8, temperature=0, logprobs=True
        )
        assert chat.choices[0].message.content == told.text
        logprobs = chat.choices[0].logprobs
        assert logprobs is not None
        assert [one.logprob for one in logprobs.content or ()] == pytest.approx(list(told.logprobs), abs=1e-4)
        parts = asking.chat.completions.create(
            model="poems", messages=messages, max_tokens=8, temperature=0, stream=True
        )
        assert "".join(part.choices[0].delta.content or "" for part in parts) == told.text
        with pytest.raises(openai.PermissionDeniedError, match="no such adapter"):
            asking.completions.create(model="base", prompt=PROMPT)


def test_one_scrape_has_our_metrics_and_those_of_vllm(live_server: Any) -> None:
    with urllib.request.urlopen(f"http://{live_server.process.metrics}/metrics", timeout=10) as response:
        text = response.read().decode()
    assert 'eul_requests_total{code="OK",method="Generate"}' in text
    assert "vllm:num_requests_running" in text


def test_the_end(live_server: Any) -> None:
    """Last in this file: the server takes its leave with status 0, having printed its one line."""
    assert live_server.process.stop() == 0
    assert [json.loads(line)["listen"] for line in live_server.process.popen.stdout] == [live_server.process.listen]
