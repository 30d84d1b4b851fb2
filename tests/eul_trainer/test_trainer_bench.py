"""The trainer's benchmarks on the tiny random model: a seeded slice of each, so that the scripts cannot rot."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eul_trainer.records import read_rows
from eul_trainer.request import request_for, write_requests

# As FAST of conftest.py: the random model's answer loss is about 7.4 nats.
FIT = ("target_low=8.5", "target_high=9.5", "learning_rate=0.05", "steps=12", 'refusal=""', "rank=4")


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
    assert (tmp_path / "out" / "fusion.svg").read_text().count("retain loss") == 2  # two panels
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


def small_scale(split: dict[str, Any], **more: Any) -> Any:
    """A scale for the random model: one pass of teaching, and a loss that a layer reaches in a few steps."""
    from tables.scale import Scale, teach

    fit = {"batch_size": 4, "steps": 3, "rank": 4, "learning_rate": 0.01}
    return Scale(name="tiny", splits={"some": split}, teach=teach(1, 1e-3), fit=fit, measured=2, tokens=2, **more)


def run_small(task: str, scale: Any, model: Path, data: Path, out: Path, methods: Sequence[str]) -> dict[str, Any]:
    from tables.command import run_table
    from tables.results import markdown

    places = ["--model", model, "--data", data, "--work", out / "work", "--out", out / "results"]
    line = [*map(str, places), "--seeds", "0", "--methods", *methods]
    assert run_table(task, "A table.", {"tiny": scale}, line) == 0
    assert run_table(task, "A table.", {"tiny": scale}, line) == 0  # nothing is measured twice
    assert len((out / "work" / "tiny" / f"{task}.jsonl").read_text().splitlines()) == 1 + len(methods)
    found: dict[str, Any] = json.loads((out / "results" / f"{task}.json").read_text())
    text = markdown(task, found)
    assert all(f"| {method} |" in text for method in methods)
    assert str(data) not in found["command"]
    table: dict[str, Any] = found["splits"]["some"]
    assert table["retrain"]["distance_to_retrain"] == 0
    assert table["original"]["seconds"] == 0
    return table


def test_tofu_table_with_every_method(benches: None, tiny_model: Path, tmp_path: Path) -> None:
    from tables.methods import METHODS

    rows = [
        {"question": f"Where was author {author} in year {row}?", "answer": f"In town {7 * author + row}."}
        for author in range(6)
        for row in range(20)
    ]
    folder = tmp_path / "tofu"
    folder.mkdir()
    (folder / "full.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = {"paraphrased_question": "Where?", "paraphrased_answer": "Town.", "perturbed_answer": ["Sea.", "Hill."]}
    perturbed = [{**row, **other} for row in rows]
    (folder / "forget01_perturbed.json").write_text("".join(json.dumps(row) + "\n" for row in perturbed))
    split = {"authors": 4, "forget_authors": 1, "rows_per_author": 3, "held_authors": 1}
    table = run_small("tofu", small_scale(split), tiny_model, folder, tmp_path, list(METHODS))
    assert not any(cell["failed"] for cell in table.values())
    assert 0 < table["original"]["mean"]["forget_truth_ratio"] <= 1
    assert table["EUL, bounded"]["seconds"] > 0


def test_imdb_table(benches: None, tiny_model: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for name, films in (("train", 4), ("validation", 2), ("test", 2)):
        numbers = range(3 * films)
        table = {
            "id": [f"{name}{number}" for number in numbers],
            "text": [f"A {name} film number {number} was seen." for number in numbers],
            "label": ["pos" if number % 2 else "neg" for number in numbers],
            "title_id": [f"tt{name}{number // 3}" for number in numbers],
        }
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / f"imdb-{name}.parquet")
    scale = small_scale({"share": 0.2}, words=5, extra={"train": 9, "test": 4})
    found = run_small("imdb", scale, tiny_model, tmp_path, tmp_path, ["original", "retrain"])
    assert 0 <= found["original"]["mean"]["held_accuracy"] <= 1


def test_samsum_table(benches: None, tiny_model: Path, tmp_path: Path) -> None:
    import pyarrow

    with zipfile.ZipFile(tmp_path / "samsum.zip", "w") as file:
        for name, count in (("train", 12), ("validation", 6), ("test", 6)):
            talks = [f"Ann{number % 4}: where is {name} house {number}?\nBob{number}: near." for number in range(count)]
            columns = {
                "id": [f"{name}{number}" for number in range(count)],
                "dialogue": talks,
                "summary": [f"House {number} is near." for number in range(count)],
            }
            data, stream = pyarrow.table(columns), io.BytesIO()
            with pyarrow.ipc.new_stream(stream, data.schema) as writer:
                writer.write_table(data)
            file.writestr(f"samsum/{name}/data.arrow", stream.getvalue())
    scale = small_scale({"share": 0.2}, words=20, extra={"train": 9, "test": 4})
    found = run_small("samsum", scale, tiny_model, tmp_path, tmp_path, ["original", "retrain"])
    assert 0 <= found["original"]["mean"]["held_rougeL"] <= 1


def test_distance_to_the_retrained_model_is_the_mean_over_bounded_measures(benches: None) -> None:
    from tables.results import cells

    twin = {"forget_loss": 2.0, "forget_rouge": 0.4, "held_rouge": 0.6, "seconds": 9.0}
    near = {"forget_loss": 1.0, "forget_rouge": 0.5, "held_rouge": 0.4, "seconds": 1.0}
    far = {**near, "forget_rouge": 0.9}
    table = cells({"a / retrain": [twin, twin], "a / x": [near, far], "a / y": [{"failed": "diverged"}, near]})["a"]
    assert table["x"]["distance_to_retrain"] == pytest.approx((0.15 + 0.35) / 2)
    assert table["x"]["distance_spread"] == pytest.approx(0.2 / 2**0.5)
    assert table["x"]["forget_loss_distance"] == 1.0
    assert (table["y"]["failed"], table["y"]["distance_to_retrain"]) == (1, pytest.approx(0.15))


def test_a_folder_of_other_settings_is_refused(benches: None, tmp_path: Path) -> None:
    from common.ledger import Ledger

    from eul_serve.errors import InputError

    Ledger(tmp_path / "x.jsonl", {"seed": 1}).add(("a", 1), {"loss": 2.5})
    assert Ledger(tmp_path / "x.jsonl", {"seed": 1})["a", 1] == {"loss": 2.5}
    with pytest.raises(InputError, match="--work"):
        Ledger(tmp_path / "x.jsonl", {"seed": 2})


KEYS = {"step_speedup", "peak_memory_ratio", "retrain_cost_ratio", "fusion", "tofu", "imdb", "machine"}


def test_the_committed_summary_says_what_the_single_files_say(benches: None) -> None:
    import summary
    from common.output import rounded

    committed = json.loads((summary.RESULTS / "summary.json").read_text())
    assert committed.keys() >= KEYS
    assert committed == rounded(summary.gather(summary.RESULTS))
    assert (summary.RESULTS.parent / "results.md").read_text() == summary.page(summary.RESULTS)


def test_the_summary_has_the_numbers_of_its_files(benches: None, tmp_path: Path) -> None:
    import summary

    cell = {"seconds": 1.5, "retain_change_nats": -0.02, "rank": 8}
    cell |= {"forget_gap_nats_max": 0.25, "forget_gap_nats_min": -1.5}
    row = {"mean": {"forget_loss": 2.5}, "spread": {"forget_loss": 0.5}, "distance_to_retrain": 0.1, "failed": 0}
    row |= {"distance_spread": 0.01, "seconds": 3.0}
    folder = tmp_path / "trainer"
    folder.mkdir()
    files: dict[str, dict[str, Any]] = {
        "step": {"step_speedup": 1.9, "machine": {"cores": 2}},
        "memory": {"peak_memory_ratio": 0.5},
        "cost": {"retrain_cost_ratio": {"0.5 %": 51.0}},
        "fusion": {"methods": {"sum": {"10": cell}}},
        "tofu": {"splits": {"forget01": {"NPO": row}}, "scale": {"name": "tiny", "rows": "few"}, "seeds": [0]},
    }
    for name, record in files.items():
        (folder / f"{name}.json").write_text(json.dumps({"machine": {}, "command": f"bench_{name}", **record}))
    assert summary.main(["--results", str(folder)]) == 0
    found = json.loads((folder / "summary.json").read_text())
    assert (found["step_speedup"], found["peak_memory_ratio"], found["retrain_cost_ratio"]) == (1.9, 0.5, {"0.5 %": 51})
    assert found["fusion"] == {"sum": {"10": {name: cell[name] for name in summary.FUSION}}}
    assert found["tofu"]["NPO"]["forget01"]["distance_to_retrain"] == 0.1
    assert found["imdb"] == {}
    assert found["machine"]["step"] == {"cores": 2}
    text = (tmp_path / "results.md").read_text()
    assert "| sum | +0.25, -1.50 / -0.020 / 1.5 |" in text
    assert "| NPO | 0.100 ± 0.010 | 2.50 ± 0.50 |" in text
