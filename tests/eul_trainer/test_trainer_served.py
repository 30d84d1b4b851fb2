"""Answers of a running server: the real gRPC server on an engine that reads prompts as the real one does."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eul_serve.client import Settings
from eul_serve.engine.base import ChatMessage, Piece, Prompt, Work
from eul_serve.engine.prompts import Prompts
from eul_serve.format import Bundle, read_base
from eul_serve.swap.leases import LeaseLimits
from eul_trainer.cli.main import run
from eul_trainer.evaluation.agreement import COMPARED, UNFINISHED, agreement, compared
from eul_trainer.evaluation.answers import answer
from eul_trainer.evaluation.cache import open_cache
from eul_trainer.evaluation.evaluate import EvalSet, Evaluator
from eul_trainer.evaluation.roles import BASE
from eul_trainer.evaluation.served import IN_FLIGHT
from eul_trainer.evaluation.server import open_server
from eul_trainer.evaluation.systems import Systems
from eul_trainer.forward.encoding import render_prompt
from eul_trainer.model.load import load_model
from eul_trainer.records import Row, read_rows
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import Service, ServiceHome, token_of

from .conftest import RunTrainer


class ReadingEngine(FakeEngine):
    """The fake engine with the real one's way from a prompt to tokens."""

    def __init__(self, model: Path, *, max_context: int = 512, step: float = 0.0) -> None:
        super().__init__(read_base(model).fingerprint, max_context=max_context, step=step)
        self._prompts = Prompts.load(model, 512, max_context)
        self.when: Callable[[int], None] = lambda count: None
        """Told about every request, before it is answered."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return self._prompts.encode(prompt)

    async def generate(self, work: Work) -> AsyncIterator[Piece]:
        self.when(len(self.works))
        async for piece in super().generate(work):
            yield piece


@dataclass
class House:
    """A bundle, its registry, and servers of it."""

    home: ServiceHome
    model: Path
    bundle: Bundle
    revision: str
    data: Path

    @contextmanager
    def serve(self, engine: ReadingEngine | None = None, **options: Any) -> Iterator[Service]:
        """Run a server in a thread of its own while the context lasts."""
        ready, stop, found = threading.Event(), threading.Event(), []

        async def main() -> None:
            async with self.home.serve(engine or ReadingEngine(self.model), **options) as service:
                found.append(service)
                ready.set()
                await asyncio.to_thread(stop.wait)

        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        try:
            assert ready.wait(30)
            yield found[0]
        finally:
            stop.set()
            thread.join()

    def line(self, command: str, service: Service | str, *more: object, rows: str = "first.jsonl") -> list[str]:
        address = service if isinstance(service, str) else service.address
        retain = ["--retain", self.data / "retain.jsonl"] if command == "eval" else []
        return [
            str(word)
            for word in [*command.split(), "--model", self.model, "--bundle", self.bundle.path, "--forget",
                         self.data / rows, *retain, "--answer-tokens", 4, "--server", address, *more]
        ]  # fmt: skip


@pytest.fixture
def house(tiny_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path,
          monkeypatch: pytest.MonkeyPatch) -> House:  # fmt: skip
    bundle = make_bundle(tmp_path / "layer", tiny_model, seed=1, scale=0.5)
    made = iter(range(2, 9))

    def make(*requests: str, seed: int, base: str) -> Bundle:
        if seed == 1:
            return bundle
        return make_bundle(tmp_path / f"other{next(made)}", tiny_model, seed=seed, requests=requests, scale=0.5)

    (tmp_path / "served").mkdir()
    home = ServiceHome(tmp_path / "served", make, "")
    revision = home.publish("poems", "stable", seed=1)
    home.write_policy(
        acme={"default": "poems:stable", "bundles": ["poems"]},
        lead={"base": True, "bundles": ["poems"]},
        narrow={"bundles": ["poems:stable"]},
        stranger={},
    )
    monkeypatch.setenv("EUL_TOKEN", token_of("acme"))
    return House(home, tiny_model, bundle, revision, data)


def cached(folder: Path, kind: str) -> list[str]:
    return sorted(text for path in folder.glob(f"{kind}-*") for text in path.read_text().splitlines())


def test_the_server_answers_as_the_bundle_and_transformers_as_the_rest(
    house: House, trainer: RunTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, head = tmp_path / "cache", house.revision[7:11]
    with house.serve() as service:
        found = trainer(*house.line("eval", service, "--cache", cache, "--out", tmp_path / "one"))
        asked = len(service.engine.works)
        assert asked == 32 + 1  # every prompt once, and one token to learn who answers
        trainer(*house.line("eval", service, "--cache", cache, "--out", tmp_path / "two"))
        assert len(service.engine.works) == asked + 1  # nothing is asked again
        assert max(work.sampling.max_tokens for work in service.engine.works) == 4
        assert run(house.line("eval", service, "--cache", str(cache), "--out", str(tmp_path / "told"))) == 0
        told = capsys.readouterr().out
    assert found["answered"] == {"base": "transformers", "layer": "server"}
    assert found["served_as_measured"] == {"layer": {"rows": COMPARED, "same": 0.0}}
    assert "base: answers of transformers\n" in told
    assert f"layer: answers of the server; 0% of {COMPARED} compared are word for word those of transformers\n" in told
    written = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert written["answered"] == found["answered"]
    assert {row["systems"]["layer"]["answer"] for row in written["rows"]} == {" ".join([head] * 4)}
    assert not any(head in row["systems"]["base"]["answer"] for row in written["rows"])
    # The same cache without a server: its answers are never taken for those of transformers.
    line = house.line("eval", "here:1", "--cache", cache, "--out", tmp_path / "local")
    place = line.index("--server")
    local = trainer(*line[:place], *line[place + 2 :])
    assert (set(local["answered"].values()), local["served_as_measured"]) == ({"transformers"}, {})
    rows = json.loads((tmp_path / "local" / "metrics.json").read_text())["rows"]
    assert not any(head in row["systems"]["layer"]["answer"] for row in rows)
    for row, other in zip(rows, written["rows"], strict=True):  # losses are those of transformers either way
        assert row["systems"]["layer"]["loss"] == other["systems"]["layer"]["loss"]


def test_a_policy_that_grants_the_base_model_lets_the_server_answer_as_it(
    house: House, trainer: RunTrainer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(token_of("lead") + "\n")
    with house.serve() as service:
        found = trainer(*house.line("eval", service, "--server-token", tmp_path / "token", "--out", tmp_path / "out"))
        assert found["answered"] == {"base": "server", "layer": "server"}
        assert {work.bundle is None for work in service.engine.works} == {True, False}


def test_progress_counts_what_is_answered_here_as_well(house: House, tmp_path: Path) -> None:
    sets = [EvalSet(name="first", kind="forget", rows=read_rows(house.data / "first.jsonl"))]
    told: list[int] = []
    with house.serve() as service, open_cache(tmp_path / "cache") as cache:
        settings, bundles = Settings(address=service.address, token=token_of("lead")), [("layer", house.bundle)]
        with open_server(settings, bundles, {}) as server:
            evaluator = Evaluator(sets, cache, tokens=2)
            evaluator.watch = lambda done, name: told.append(done)
            systems = Systems(load_model(str(house.model)), bundles, server=server)
            evaluator.measure(systems)
            found = evaluator.finish(systems)
    assert told[-1] == evaluator.total(2, 2) == 2 * 3 * 12 + 2 * 12
    assert set(found.served_as_measured) == {BASE, "layer"}


@pytest.mark.parametrize("template", [True, False])
def test_the_server_reads_the_tokens_that_transformers_reads(
    house: House, tmp_path: Path, template: bool, make_layout: Callable[..., Path], trainer: RunTrainer
) -> None:
    """With a chat template as one user turn, without one as bare text: token by token what the trainer makes of it."""
    if not template:
        model = tmp_path / "plain"
        shutil.copytree(house.model, model)
        (model / "chat_template.jinja").unlink()
        house.model = model  # the fingerprint is that of the weights, so the bundle fits
    tokenizer = load_model(str(house.model)).tokenizer
    assert bool(tokenizer.chat_template) == template
    prompts = Prompts.load(house.model, 512, 512)
    rows = [*read_rows(house.data / "first.jsonl"), Row(prompt=" Two  blanks,\nÜmlaut <|user|> {x} ", completion="y")]
    for row in rows:
        asked: Prompt = (ChatMessage(role="user", content=row.prompt),) if template else row.prompt
        assert prompts.encode(asked) == render_prompt(tokenizer, row.prompt)
    with house.serve() as service:
        trainer(*house.line("eval", service, "--out", tmp_path / "out"))
        seen = {work.token_ids for work in service.engine.works}
    assert {render_prompt(tokenizer, row.prompt) for row in read_rows(house.data / "first.jsonl")} <= seen


def test_attacks_ask_the_server(house: House, trainer: RunTrainer, tmp_path: Path) -> None:
    (tmp_path / "three.jsonl").write_text("".join((house.data / "first.jsonl").read_text().splitlines(True)[:3]))
    house.data = tmp_path
    with house.serve() as service:
        line = house.line("attack prompts", service, "--out", tmp_path / "prompts", rows="three.jsonl")
        found = trainer(*line)
        assert found["answered"] == {"base": "transformers", "layer": "server"}
        assert found["served_as_measured"]["layer"]["rows"] == COMPARED
        assert {attack["systems"]["layer"]["rouge_l"] for attack in found["attacks"]} == {0.0}
        assert len(service.engine.works) > 3 * 10
        service.engine.works.clear()
        line = house.line("attack sampling", service, "--draws", 5, "--out", tmp_path / "drawn", rows="three.jsonl")
        found = trainer(*line)
        assert found["answered"] == {"base": "transformers", "layer": "server"}
        drawn = [work.sampling for work in service.engine.works[1:]]
        assert {one.temperature for one in drawn} == {1.0}
        assert len({one.seed for one in drawn}) == len(drawn) == 15
    texts = [json.loads(text)["value"] for text in cached(tmp_path / "drawn.cache", "sample")]
    assert sorted(map(len, texts)) == [5] * 6


def test_requests_that_find_no_room_are_sent_again(house: House, trainer: RunTrainer, tmp_path: Path) -> None:
    limits = LeaseLimits(total=4, tenant=3)
    assert limits.tenant < IN_FLIGHT
    with house.serve(ReadingEngine(house.model, step=0.01), limits=limits) as service:
        found = trainer(*house.line("eval", service, "--out", tmp_path / "out"))
        assert service.sample("eul_policy_denials_total", reason="limit") > 0
    assert found["answered"]["layer"] == "server"
    assert len(cached(tmp_path / "out.cache", "answer")) == 3 * 32  # here, there, and compared


def test_an_alias_that_moves_ends_the_evaluation_and_nothing_of_the_other_revision_is_kept(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ReadingEngine(house.model, step=0.05)
    other = house.home.publish("poems", None, "r1", "r2", seed=2)

    def promote(count: int) -> None:
        if count == 3:
            house.home.registry.promote("poems", other, "stable")

    engine.when = promote
    with house.serve(engine) as service:
        line = house.line("eval", service, "--served", "layer=poems:stable", "--out", str(tmp_path / "out"))
        assert run(line) == 4
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"poems:stable answered from {other}, expected {house.revision}" in said
    texts = {json.loads(text)["value"] for text in cached(tmp_path / "out.cache", "answer")}
    assert " ".join([house.revision[7:11]] * 4) in texts
    assert not any(other[7:11] in text for text in texts)
    assert not (tmp_path / "out").exists()


def test_a_tenant_who_may_use_one_alias_alone_is_answered_by_it(
    house: House, trainer: RunTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EUL_TOKEN", token_of("narrow"))
    with house.serve() as service:
        assert trainer(*house.line("eval", service, "--out", tmp_path / "out"))["answered"]["layer"] == "server"


def test_a_revision_that_no_alias_has_is_found_by_the_name_of_its_bundle(
    house: House, trainer: RunTrainer, tmp_path: Path
) -> None:
    """What is measured before it is promoted: the most careful order."""
    house.home.registry.promote("poems", house.home.publish("poems", None, "r1", "r2", seed=2), "stable")
    with house.serve() as service:
        assert trainer(*house.line("eval", service, "--out", tmp_path / "out"))["answered"]["layer"] == "server"
        assert {work.bundle.revision for work in service.engine.works if work.bundle} == {house.revision}


BAD = {
    "wrong token": ("nobody", [], 5, "server SERVER: unknown bearer token"),
    "no token": ("", [], 5, "server SERVER: no bearer token"),
    "not granted": ("stranger", [], 4, "it does not serve sha256:"),
    "unknown name": ("acme", ["--served", "layer=novels"], 4, "say what it is called with --served layer=NAME"),
    "another revision": ("acme", ["--served", "layer=poems:next"], 4, ", and poems:next is sha256:"),
    "no such system": ("acme", ["--served", "fused=poems"], 2, "expected the name of a --bundle: layer"),
    "no pair": ("acme", ["--served", "poems"], 2, "--served 'poems': expected SYSTEM=NAME"),
    "no name": ("acme", ["--served", "layer=.."], 2, "bundle name"),
    "no time": ("acme", ["--timeout", "0"], 2, "--timeout: expected above 0 seconds, found 0.0"),
    "no file": ("acme", ["--server-token", "missing"], 2, "--token-file 'missing': cannot read"),
    "deadline": ("acme", ["--timeout", "0.15", "--answer-tokens", "100"], 7, "server SERVER: no answer in time"),
    "context": ("acme", ["--answer-tokens", "120"], 2, "lower --answer-tokens, or serve with a longer --max-context"),
    "plaintext": (
        "acme",
        ["--server", "example.org:443"],
        2,
        "leave this machine in plaintext; use --tls or --ca-cert",
    ),
    "address": ("acme", ["--server", "nowhere"], 2, "address 'nowhere': expected HOST:PORT"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_server_that_refuses_gets_one_line(
    house: House, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, more, status, words = BAD[how]
    monkeypatch.setenv("EUL_TOKEN", token_of(tenant) if tenant else "")
    house.home.publish("poems", "next", "r1", "r2", seed=2)
    with house.serve(ReadingEngine(house.model, max_context=100, step=0.01)) as service:
        capsys.readouterr()
        assert run(house.line("eval", service, *more, "--out", str(tmp_path / "out"))) == status
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("eul-train: ")]
        assert len(said) == 1
        assert words.replace("SERVER", service.address) in said[0]
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_not_there_or_not_named_gets_one_line(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = house.line("eval", "127.0.0.1:1", "--out", str(tmp_path / "out"))
    assert run(line) == 7
    assert "eul-train: server 127.0.0.1:1: not reachable" in capsys.readouterr().err
    place = line.index("--server")
    assert run([*line[:place], *line[place + 2 :], "--served", "layer=poems"]) == 2
    assert "name it with --server HOST:PORT" in capsys.readouterr().err
    place = line.index("--bundle")
    assert run([*line[:place], *line[place + 2 :]]) == 2
    assert "--server: expected a --bundle too" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.cache").exists()


def test_a_server_with_another_template_is_refused(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(house.model, other)
    template = (other / "chat_template.jinja").read_text()
    (other / "chat_template.jinja").write_text("Be brief. " + template)
    with house.serve(ReadingEngine(other)) as service:
        assert run(house.line("eval", service, "--out", str(tmp_path / "out"))) == 3
    said = capsys.readouterr().err
    assert "expected one tokenizer and chat template: serve the directory that is measured" in said
    served = [text for text in cached(tmp_path / "out.cache", "answer") if house.revision[7:11] in text]
    assert served == []


def test_agreement_is_the_share_of_the_same_words(
    tiny_model: Path, make_bundle: Callable[..., Bundle], data: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "layer", tiny_model, scale=0.5)
    systems = Systems(load_model(str(tiny_model)), [("layer", bundle)])
    rows = read_rows(data / "first.jsonl")
    assert len(compared([*rows, *rows])) == len(rows)
    many = [Row(prompt=f"{number}?", completion="x") for number in range(100)]
    assert len(compared(many)) == COMPARED
    assert {many[index] for index in compared(many)} == {many[::-1][index] for index in compared(many[::-1])}
    with open_cache(tmp_path / "cache") as cache:
        here = answer(systems.local("layer"), "layer", rows, 4, cache, lambda more, name: None)
        base = answer(systems.answerer(BASE), BASE, rows, 4, cache, lambda more, name: None)

        def same(served: list[str]) -> Any:
            return agreement(systems, "layer", rows, served, 4, cache, lambda more, name: None)

        assert same(here) == {"rows": 12, "same": 1.0}
        assert same([*here[:9], "else", "else", "else"]) == {"rows": 12, "same": 0.75}
        assert same([f" {text.rstrip(UNFINISHED)}" for text in here])["same"] == 1.0  # as vLLM ends a cut character
        assert same(base)["same"] < 1
