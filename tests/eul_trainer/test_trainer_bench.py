"""The trainer's benchmarks on the tiny random model: a seeded slice of each, so that the scripts cannot rot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eul_trainer.records import read_rows
from eul_trainer.request import request_for, write_requests

BENCHES = Path(__file__).resolve().parents[1] / "benchmarks" / "trainer"

# As FAST of conftest.py: the random model's answer loss is about 7.4 nats.
FIT = ("target_low=8.5", "target_high=9.5", "learning_rate=0.05", "steps=24", 'refusal=""', "rank=4")


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks' folder on the path, as when a script there is started."""
    monkeypatch.syspath_prepend(str(BENCHES))


@pytest.fixture(scope="module")
def requests(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `eul-train data tofu --requests 2` writes, in small."""
    folder = tmp_path_factory.mktemp("requests")
    made = []
    for name in ("first", "second"):
        path = folder / f"{name}.jsonl"
        path.write_text((data / f"{name}.jsonl").read_text())
        made.append(request_for(read_rows(path), path, reason="test", received=None, id=name))
    write_requests(folder / "requests.jsonl", made)
    lines = (data / "retain.jsonl").read_text().splitlines(keepends=True)
    (folder / "retain.jsonl").write_text("".join(lines[:12]))
    held = [{**json.loads(line), "group": "held_authors"} for line in lines[12:]]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    return folder


def fusion_arguments(model: Path, data: Path, work: Path, out: Path, *methods: str) -> list[str]:
    chosen = [part for item in FIT for part in ("--fit", item)]
    places = ["--model", model, "--data", data, "--work", work, "--out", out]
    return [*map(str, places), *chosen, "--requests", "2", "--seeds", "0", "--methods", *methods]


def test_fusion(benches: None, tiny_model: Path, requests: Path, tmp_path: Path) -> None:
    import bench_fusion
    from fusing.methods import METHODS, REFERENCES

    line = fusion_arguments(tiny_model, requests, tmp_path / "work", tmp_path / "out", *METHODS, *REFERENCES)
    assert bench_fusion.main(line) == 0
    found = json.loads((tmp_path / "out" / "fusion.json").read_text())
    cells: dict[str, Any] = found["methods"]
    ranks = {name: row["2"]["rank"] for name, row in cells.items()}
    assert list(ranks) == [*METHODS, *REFERENCES]
    assert (ranks["sum"], ranks["paper"], ranks["in sequence"], ranks["compress, rank of one"]) == (8, 4, 4, 4)
    assert (tmp_path / "out" / "fusion.svg").read_text().count("retain loss") == 1
    assert str(tmp_path) not in found["command"]
    ledger = tmp_path / "work" / "fusion.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]) + lines[-1][:10])  # killed in the middle of the last line
    assert bench_fusion.main(line) == 0
    assert json.loads((tmp_path / "out" / "fusion.json").read_text())["methods"].keys() == cells.keys()
    assert len(ledger.read_text().splitlines()) == len(lines)


def test_fusion_judges_the_worst_request_and_signed_changes(benches: None) -> None:
    from fusing.table import judge, over_seeds

    own, fused = {"a": 4.0, "b": 5.0}, {"a": 3.5, "b": 5.25}
    before, held = {"held_authors": [1.0, 1.0]}, {"held_authors": [1.5, 0.75]}
    found = judge(own, fused, before, held)
    assert found["forget_gap_nats_max"] == 0.5
    assert found["forget_gap_nats_mean"] == 0.125
    assert found["retain_change_nats"] == {"held_authors": 0.125}
    assert found["retain_moved_nats"] == {"held_authors": 0.375}
    better = {**found, "forget_gap_nats_max": 0.25, "retain_change_nats": {"held_authors": -0.25}}
    cell = over_seeds([{**one, "seconds": 1.0, "rank": 8} for one in (found, better)])
    assert (cell["forget_gap_nats_max"], cell["retain_change_nats"]) == (0.5, -0.25)  # the worst of the seeds
    assert cell["retain_change_nats_mean"] == pytest.approx(-0.0625)
