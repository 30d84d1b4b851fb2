"""The demonstration, whole and on the tiny model: every command line and every check, without the promised numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from eul_serve.errors import EulError
from eul_trainer.demo import __main__ as demo
from eul_trainer.demo.plan import BOTH, DATA, Plan
from eul_trainer.demo.promises import missed
from eul_trainer.demo.server import serving
from eul_trainer.demo.shell import CommandError, run
from eul_trainer.demo.summary import Judged, Line, Summary, Swap

GOOD = Summary(
    forget=[Line(name="a", rows=30, before=1.0, layer=2.8, fused=2.5)],
    retain=[Line(name="near", rows=50, before=1.0, layer=1.05, fused=0.95)],
    gibberish={"a": 0.0, BOTH: 0.1},
    verdicts={"a": Judged(True, "a passes all 8 findings"), BOTH: Judged(True, "both passes all 9 findings")},
    certified=Judged(True, "certified 2026-01-01: both passes all 9 findings"),
    swap=Swap(requests=9, failed=0, revisions=["sha256:1", "sha256:2"], seconds=1.0, refused="no", errors=[]),
    refused={},
    answers=[],
    seconds=1.0,
)


@pytest.fixture
def plan(tiny_model: Path, tmp_path: Path) -> Plan:
    """The demonstration with a few rows of each file, and training that ends at once."""
    data = tmp_path / "data"
    data.mkdir()
    for path in DATA.glob("*.jsonl"):
        (data / path.name).write_text("".join(path.read_text().splitlines(keepends=True)[::7]))
    short, target = ("--steps", "2", "--rank", "4"), ("--target-low", "0.1", "--target-high", "40")
    return Plan(out=tmp_path / "out", model=tiny_model, make_model=False, data=data, target=target, fit_options=short)


@pytest.mark.engine
def test_the_whole_demonstration(plan: Plan) -> None:
    summary = demo.demonstrate(plan)
    written = json.loads((plan.out / "summary.json").read_text())
    assert {"forget", "retain", "swap", "seconds"} <= written.keys()
    assert [line["name"] for line in written["forget"]] == ["einstein", "potter"]
    assert {line["name"] for line in written["retain"]} == {"near-einstein", "near-potter", "general"}
    assert summary.swap.failed == 0
    assert summary.swap.requests >= 16
    assert len(summary.swap.revisions) == 2
    assert len(summary.refused) == 3
    assert len(set(summary.refused.values())) == 1, "unknown and forbidden must sound the same"
    assert "--allow-unforget" in summary.swap.refused
    assert set(summary.answers[0].answers) == {"einstein", "potter", BOTH}
    assert not summary.certified.passed
    assert "both" in summary.certified.said
    assert [path.name for path in plan.out.glob("*.pem")] == ["publisher.pem"], "the certificate's private key is gone"
    assert "Not everything promised was met" in (plan.out / "report.html").read_text()
    assert missed(summary), "a random model knows nothing that it could forget"


def test_good_numbers_are_accepted() -> None:
    assert missed(GOOD) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"forget": [replace(GOOD.forget[0], layer=1.9)]}, "its layer: rise 0.90"),
        ({"forget": [replace(GOOD.forget[0], layer=5.1)]}, "its layer: rise 4.10"),
        ({"forget": [replace(GOOD.forget[0], fused=1.9)]}, "fused: rise 0.90"),
        ({"forget": [replace(GOOD.forget[0], before=1.6)]}, "loss 1.60 before"),
        ({"forget": [replace(GOOD.forget[0], rows=19)]}, "19 rows"),
        ({"retain": [replace(GOOD.retain[0], layer=1.11)]}, "change 0.110"),
        ({"retain": [replace(GOOD.retain[0], fused=0.89)]}, "change 0.110"),
        ({"retain": [replace(GOOD.retain[0], rows=49)]}, "fewer than 50"),
        ({"gibberish": {"a": 0.11}}, "11% gibberish"),
        ({"verdicts": {"a": Judged(False, "a passes all 8 findings")}}, "policy: a passes all 8 findings"),
        ({"certified": Judged(False, "both does not pass")}, "certificate: both does not pass"),
        ({"swap": replace(GOOD.swap, failed=1)}, "1 of 9 requests failed"),
        ({"swap": replace(GOOD.swap, revisions=["sha256:1"])}, "1 revisions"),
    ],
)
def test_every_broken_promise_is_named(change: dict[str, object], word: str) -> None:
    assert any(word in line for line in missed(replace(GOOD, **change)))  # type: ignore[arg-type]


def test_a_failed_command_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"(?s)eul list.*exit status .*no-such"):
        run("eul", "list", "--registry", str(tmp_path / "no-such"), quiet=True)


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    arguments = ["eul", "serve", "--model", str(tmp_path), "--registry", str(tmp_path), "--policy", str(tmp_path / "p")]
    with pytest.raises(CommandError, match="its log ends"), serving(arguments, tmp_path / "ready", tmp_path / "log"):
        pass


def test_the_program_ends_with_a_line_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("not a directory")
    done = CliRunner().invoke(demo.main, ["--out", str(tmp_path / "out"), "--model", str(tmp_path / "model")])
    assert done.exit_code == EulError.exit_status
    assert "demo: eul-train base" in done.output
