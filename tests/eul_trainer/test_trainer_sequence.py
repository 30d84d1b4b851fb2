"""Requests that come and go: which steps there are, that each is what it says, and that nothing is made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_serve.format import read_bundle
from eul_trainer.cli import main as cli
from eul_trainer.cli.sequence import _orders
from eul_trainer.evaluation.workshop import layers_by_request, steps_of

from .conftest import RunTrainer


def test_requests_come_and_go_in_their_order() -> None:
    found = [(step.action, step.request, step.requests) for step in steps_of(["a", "b", "c"], revocations=True)]
    assert found == [
        ("fuse", "a", ("a",)), ("fuse", "b", ("a", "b")), ("fuse", "c", ("a", "b", "c")),
        ("revoke", "a", ("b", "c")), ("revoke", "b", ("c",)),
    ]  # fmt: skip
    assert steps_of(["a"], revocations=True) == steps_of(["a"], revocations=False)


@given(st.permutations(["a", "b", "c", "d"]), st.booleans())
def test_a_step_changes_what_is_covered_by_its_request_alone(order: list[str], revocations: bool) -> None:
    covered: set[str] = set()
    for step in steps_of(order, revocations):
        covered = covered ^ {step.request}
        assert set(step.requests) == covered
        assert (step.request in covered) == (step.action == "fuse")


def test_orders_are_those_asked_for() -> None:
    assert _orders(["a", "b"], (), every=False) == [("a", "b")]
    assert _orders(["a", "b"], ("b,a", "a"), every=False) == [("b", "a"), ("a",)]
    assert set(_orders(["a", "b", "c"], (), every=True)) == {
        ("a", "b", "c"), ("a", "c", "b"), ("b", "a", "c"), ("b", "c", "a"), ("c", "a", "b"), ("c", "b", "a"),
    }  # fmt: skip
    for known, given_, every, words in (
        ("ab", ("a,c",), False, "'c': no layer has this request; the layers have a, b"),
        ("ab", ("a,a",), False, "'a': it stands there twice"),
        ("ab", ("a",), True, "leave --order out"),
        ("abcde", (), True, "5 requests have 120 orders, at most 24"),
    ):
        with pytest.raises(InputError, match=words):
            _orders(list(known), given_, every)


def test_every_step_is_measured_and_a_second_run_makes_nothing(
    tiny_model: Path, data: Path, layers: Path, tmp_path: Path, trainer: RunTrainer
) -> None:
    first, second = (read_bundle(layers / name).manifest.requests[0].id for name in ("first", "second"))
    line: list[Any] = [
        "sequence", layers / "first", layers / "second", "--model", tiny_model,
        "--forget", data / "first.jsonl", "--forget", f"{second}={data / 'second.jsonl'}",
        "--retain", data / "retain.jsonl", "--fuse-retain", data / "retain.jsonl", "--answer-tokens", "2",
        "--all-orders", "--cache", tmp_path / "cache",
    ]  # fmt: skip
    found = trainer(*line, "--out", tmp_path / "one")
    assert [order["order"] for order in found["orders"]] == [[first, second], [second, first]]
    there, back = (order["steps"] for order in found["orders"])
    assert [(step["action"], step["request"]) for step in there] == [
        ("fuse", first),
        ("fuse", second),
        ("revoke", first),
    ]
    assert {name: part["request"] for name, part in found["before"].items()} == {
        "first": first, "second": second, "retain": None,
    }  # fmt: skip
    before, alone, both, rest = (
        {name: part["loss"] for name, part in sets.items()}
        for sets in (found["before"], *(step["sets"] for step in there))
    )
    assert alone["first"] > before["first"] + 0.5  # the first layer forgets its rows
    assert both["second"] > alone["second"] + 0.5  # the second one comes
    assert rest["first"] < both["first"] - 0.5  # the first one goes
    assert there[2]["sets"]["second"]["loss"] == pytest.approx(back[0]["sets"]["second"]["loss"], abs=1e-4)
    assert [step["seconds"] > 0 for step in there] == [False, True, True]
    assert there[1]["revision"] == back[1]["revision"]  # a fusion does not know the order
    bundles = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "bundles").iterdir()}
    assert len(bundles) == 3  # one fusion, two revocations from it
    again = trainer(*line, "--out", tmp_path / "two")
    assert {**again, "path": None} == {**found, "path": None}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "bundles").iterdir()} == bundles
    written = json.loads((tmp_path / "two" / "sequence.json").read_text())
    assert written["orders"] == found["orders"]


def test_a_layer_of_several_requests_is_refused(
    tiny_model: Path, data: Path, layers: Path, tmp_path: Path, trainer: RunTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer("fuse", layers / "first", layers / "second", "--out", tmp_path / "fused")
    with pytest.raises(InputError, match=r"expected a layer of one request, found .*; name the single layers"):
        layers_by_request([tmp_path / "fused"])
    with pytest.raises(InputError, match="has another layer already"):
        layers_by_request([layers / "first", layers / "first"])
    line = ["sequence", layers / "first", "--model", tiny_model, "--forget", data / "first.jsonl",
            "--retain", data / "retain.jsonl", "--order", "nobody", "--out", tmp_path / "out"]  # fmt: skip
    assert cli.run([*map(str, line)]) == 2
    assert "'nobody': no layer has this request" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
