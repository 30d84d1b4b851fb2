"""Certificates end to end: measured, attacked, signed, checked; and every change of what they rest on is caught."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from eul_serve.cli.main import group
from eul_serve.errors import BundleFormatError
from eul_serve.format import Bundle
from eul_serve.signing import Statement, make_keys
from eul_trainer.cli import main as cli

POLICY = """version = 1
[[rule]]
name = "anything"
on = "forget"
measure = "loss"
low = 0.0
high = 99.0
"""


@pytest.fixture(scope="module")
def house(
    tiny_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle, its evaluation, an attack, keys and a certificate."""
    home = tmp_path_factory.mktemp("house")
    make_bundle(home / "bundle", tiny_model, requests=("r1", "r2"))
    make_bundle(home / "other", tiny_model, seed=1)
    (home / "policy.toml").write_text(POLICY)
    make_keys(home / "key.pem", home / "key.pub")
    common = [
        "--model",
        tiny_model,
        "--bundle",
        home / "bundle",
        "--forget",
        data / "first.jsonl",
        "--answer-tokens",
        "2",
    ]
    run("eval", *common, "--retain", data / "retain.jsonl", "--policy", home / "policy.toml", "--out", home / "report")
    run("attack", "choosing", *common, "--out", home / "choosing")
    run("certify", *certify_line(home), "--out", home / "certificate")
    return home


def run(*line: object) -> None:
    assert cli.run([*map(str, line)]) == 0


def certify_line(home: Path, **other: object) -> list[object]:
    given = {"bundle": home / "bundle", "evaluation": home / "report", "attack": home / "choosing",
             "policy": home / "policy.toml", "key": home / "key.pem", **other}  # fmt: skip
    return [part for name, value in given.items() for part in (f"--{name}", value)]


def verify(home: Path, *more: object, bundle: str = "bundle", key: str = "key.pub") -> tuple[int, str]:
    line = ["verify", f"{home / bundle}", "--certificate", home / "certificate", "--public-key", home / key, *more]
    found = CliRunner().invoke(group, [*map(str, line)])
    status = found.exit_code if found.exception is None else getattr(found.exception, "exit_status", found.exit_code)
    return status, found.output + str(found.exception or "")


def evidence(home: Path) -> list[object]:
    files = {"metrics.json": home / "report" / "metrics.json", "report.html": home / "report" / "report.html",
             "choosing/attack.json": home / "choosing" / "attack.json"}  # fmt: skip
    return [part for name, path in files.items() for part in ("--evidence", f"{name}={path}")]


def test_a_certificate_verifies_and_names_what_was_shown(house: Path) -> None:
    status, told = verify(house, *evidence(house))
    assert status == 0
    assert "bundle passes all 1 findings" in told
    status, told = verify(house, "--json")
    assert json.loads(told)["certificate"]["verdict"]["passed"] is True
    statement = Statement.parse((house / "certificate" / "signed" / "statement.json").read_bytes())
    assert set(statement.requests) == {"r1", "r2"}
    assert statement.measured["system"] == "bundle"
    assert [part["kind"] for part in statement.measured["sets"]] == ["forget", "retain"]
    assert [part["request"] for part in statement.measured["sets"]] == [None, None]
    assert set(statement.measured["sets"][0]["systems"]) == {"base", "bundle"}
    assert next(part["name"] for part in statement.measured["attacks"]["choosing/attack.json"]) == "choice"
    assert statement.measured["answered"] == {"base": "transformers", "bundle": "transformers"}
    assert {part["answered"]["bundle"] for part in statement.measured["attacks"]["choosing/attack.json"]} == {
        "transformers"
    }
    assert statement.evaluator["code"].startswith("sha256:")
    assert "does not erase" in statement.limits[0]
    assert Statement.parse(statement.dump()) == statement


def test_a_certificate_holds_no_row(house: Path, data: Path) -> None:
    text = (house / "certificate" / "signed" / "statement.json").read_text()
    for row in map(json.loads, (data / "first.jsonl").read_text().splitlines()):
        assert row["prompt"] not in text
        assert row["completion"] not in text


INPUTS = [
    "bundle/adapter_model.safetensors", "bundle/adapter_config.json", "bundle/manifest.json", "bundle/README.md",
    "report/metrics.json", "report/report.html", "choosing/attack.json", "certificate/signed/statement.json",
    "certificate/signed/policy.toml", "certificate/certificate.sig",
]  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_single_byte_changes_are_caught(house: Path, name: str, tmp_path: Path) -> None:
    """Two in each of ten files make the twenty that the issue asks for."""
    home = tmp_path / "house"
    shutil.copytree(house, home)
    path = home / name
    data = path.read_bytes()
    for place in random.Random(name).sample(range(len(data)), 2):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        status, told = verify(home, *evidence(home))
        assert status != 0, f"{name}, byte {place}"
        assert "Traceback" not in told
    path.write_bytes(data)
    assert verify(home, *evidence(home))[0] == 0


def test_another_bundle_or_signer_is_refused(house: Path, tmp_path: Path) -> None:
    status, told = verify(house, bundle="other")
    assert status == 5
    assert "it speaks of another revision" in told
    make_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    assert verify(house, key=str(tmp_path / "key.pub"))[0] == 5
    status, told = verify(house, "--evidence", f"plot.svg={house / 'key.pub'}")
    assert (status, "it does not rest on a file called 'plot.svg'" in told) == (2, True)
    assert verify(house, "--evidence", "metrics.json")[0] == 2
    found = CliRunner().invoke(group, ["verify", str(house / "bundle"), "--public-key", str(house / "key.pub")])
    assert "there is no certificate to check" in str(found.exception) + found.output


@pytest.fixture
def copy(house: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(house, tmp_path / "house")
    return tmp_path / "house"


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("other", "change", "words", "status"),
    [
        ({"bundle": "other"}, None, "was not measured there", 3),
        ({"policy": "default"}, None, "judged by another one", 2),
        ({"key": "key.pub"}, None, "expected an elliptic-curve private key", 2),
        ({"evaluation": "choosing"}, None, "cannot read", 2),
        ({}, ("report/metrics.json", lambda found: found.update(base="sha256:0")), "another base model", 3),
        ({}, ("report/metrics.json", lambda found: found["sets"][0]["systems"]["bundle"].update(loss=100.0)),
         "its verdict is not what its numbers give", 5),
        ({}, ("report/metrics.json", lambda found: found["verdicts"]["bundle"].update(passed=False)),
         "its verdict is not what its numbers give", 5),
        ({}, ("choosing/attack.json", lambda found: found["systems"].update(bundle="sha256:0")),
         "was not measured there", 3),
        ({}, ("report/metrics.json", lambda found: found.pop("code")), "expected what `eval` writes", 2),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_not_certified(
    copy: Path, other: dict[str, str], change: Any, words: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if change:
        edited(copy / change[0], change[1])
    given: dict[str, object] = {name: copy / value for name, value in other.items() if value != "default"}
    line = certify_line(copy, **given)
    if other.get("policy") == "default":
        line = line[: line.index("--policy")] + line[line.index("--policy") + 2 :]
    assert cli.run([*map(str, ["certify", *line, "--out", copy / "new"])]) == status
    assert words in capsys.readouterr().err
    assert not (copy / "new").exists()


def test_a_bundle_that_fails_gets_no_certificate(
    copy: Path, tiny_model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "strict.toml").write_text(POLICY.replace("low = 0.0", "low = 90.0"))
    run("eval", "--model", tiny_model, "--bundle", copy / "bundle", "--forget", data / "first.jsonl", "--answer-tokens",
        "2", "--retain", data / "retain.jsonl", "--policy", copy / "strict.toml", "--cache", copy / "report.cache",
        "--out", copy / "strict")  # fmt: skip
    line = certify_line(copy, evaluation=copy / "strict", policy=copy / "strict.toml")
    assert cli.run([*map(str, ["certify", *line, "--out", copy / "new"])]) == 5
    assert "no certificate: bundle fails: first: too low" in capsys.readouterr().err


def test_a_certificate_says_where_answers_came_from_if_the_evaluation_does(copy: Path) -> None:
    def served(found: dict[str, Any]) -> None:
        found["answered"]["bundle"] = "server"
        found["served_as_measured"] = {"bundle": {"rows": 32, "same": 0.96875}, "other": {"rows": 32, "same": 1.0}}

    def older(found: dict[str, Any]) -> None:
        del found["answered"], found["served_as_measured"]

    for name, change in {"served": served, "older": older}.items():
        for file in ("report/metrics.json", "choosing/attack.json"):
            edited(copy / file, change)
        run("certify", *certify_line(copy), "--out", copy / name)
    measured = Statement.parse((copy / "served" / "signed" / "statement.json").read_bytes()).measured
    assert measured["answered"] == {"base": "transformers", "bundle": "server"}
    assert measured["served_as_measured"] == {"bundle": {"rows": 32, "same": 0.96875}}
    assert measured["attacks"]["choosing/attack.json"][0]["answered"]["bundle"] == "server"
    measured = Statement.parse((copy / "older" / "signed" / "statement.json").read_bytes()).measured
    assert "answered" not in measured
    assert "answered" not in measured["attacks"]["choosing/attack.json"][0]


def test_statements_that_are_none_are_refused() -> None:
    for data in (
        b"",
        b"[]",
        b"{}",
        b'{"predicate": 3}',
        b"\xff",
        b'{"_type": "x", "predicateType": "y", "predicate": {}}',
    ):
        with pytest.raises(BundleFormatError, match=r"statement\.json"):
            Statement.parse(data)
