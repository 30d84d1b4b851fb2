"""A report of a real small evaluation, for the tests that look at the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eul_serve.format import Bundle
from eul_trainer.cli.main import run
from tests.browser.fixtures import axe, browser, leave_out

__all__ = ["axe", "browser"]
pytest_collection_modifyitems = leave_out

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Report:
    """The pages, and what they were made of."""

    pages: Path
    metrics: dict[str, Any]
    attacks: list[dict[str, Any]]
    sequence: dict[str, Any]


@pytest.fixture(scope="session")
def report(
    tiny_model: Path, other_model: Path, data: Path, make_bundle: Callable[..., Bundle],
    tmp_path_factory: pytest.TempPathFactory,
) -> Report:  # fmt: skip
    """A report of two bundles and a twin on two requests, with two attacks and a sequence in two orders."""
    home = tmp_path_factory.mktemp("report")
    bundles = [make_bundle(home / name, tiny_model, seed=seed, scale=0.2).path for seed, name in enumerate(("a", "b"))]
    for name, rows in {"first": 5, "second": 5, "retain": 8}.items():  # what takes long is the length of the page
        lines = (data / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (home / f"{name}.jsonl").write_text("".join(lines[:rows]))
    asked = ["--model", tiny_model, "--forget", home / "first.jsonl", "--forget", home / "second.jsonl",
             "--bundle", bundles[0], "--bundle", bundles[1], "--twin", other_model,
             "--answer-tokens", "4"]  # fmt: skip
    unseen = home / "unseen.jsonl"
    unseen.write_text((home / "second.jsonl").read_text().replace("Who saw", "Who painted"))
    call("eval", *asked, "--retain", home / "retain.jsonl", "--unseen", unseen, "--out", home / "report")
    call("attack", "choosing", *asked, "--out", home / "choosing")
    call("attack", "sampling", *asked, "--draws", "3", "--out", home / "sampling")
    metrics = json.loads((home / "report" / "metrics.json").read_text())
    kinds = ("choosing", "sampling")
    attacks = [part for kind in kinds for part in json.loads((home / kind / "attack.json").read_text())["attacks"]]
    (home / "sequence").mkdir()
    sequence = made_sequence(metrics)
    (home / "sequence" / "sequence.json").write_text(json.dumps(sequence))
    given = [word for kind in kinds for word in ("--attack", home / kind)]
    call("report", "--evaluation", home / "report", *given, "--sequence", home / "sequence", "--out", home / "pages")
    return Report(pages=home / "pages", metrics=metrics, attacks=attacks, sequence=sequence)


def call(*line: object) -> None:
    assert run([*map(str, line), "--json"]) == 0


def made_sequence(metrics: dict[str, Any]) -> dict[str, Any]:
    """A sequence in two orders, as the command `sequence` writes it; its losses are those of the evaluation, moved."""
    requests = {"r-first": "first", "r-second": "second"}
    before = {part["name"]: part["systems"]["base"] for part in metrics["sets"]}
    orders = []
    for order in (["r-first", "r-second"], ["r-second", "r-first"]):
        steps, on = [], []
        for number, (action, request) in enumerate(
            [("fuse", order[0]), ("fuse", order[1]), ("revoke", order[0]), ("revoke", order[1])]
        ):
            on = [*on, request] if action == "fuse" else [other for other in on if other != request]
            sets = {
                part["name"]: {
                    **before[part["name"]], "kind": part["kind"], "request": None, "rows": part["rows"],
                    "loss": before[part["name"]]["loss"]
                    + (3.0 if part["name"] in [requests[other] for other in on] else 0.001 * number),
                }
                for part in metrics["sets"]
            }  # fmt: skip
            steps.append({"action": action, "request": request, "requests": on, "revision": "sha256:" + "0" * 64,
                          "seconds": 1.25, "sets": sets})  # fmt: skip
        orders.append({"order": order, "steps": steps})
    return {
        "base": metrics["base"],
        "before": before,
        "orders": orders,
        "code": metrics["code"],
        "versions": metrics["versions"],
    }
