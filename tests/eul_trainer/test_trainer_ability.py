"""General ability by the lm-evaluation-harness itself, on a task of ours with a local file, and what is refused."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.format import Bundle
from eul_trainer.cli.main import run
from eul_trainer.evaluation.ability import table
from eul_trainer.evaluation.systems import Systems
from eul_trainer.model.load import load_model

CHOICES = ("red tree", "blue bird", "a fish", "the green house")
COMMON = """
dataset_path: json
dataset_kwargs: {{cache_dir: {folder}/cache, data_files: {{test: {folder}/house.jsonl}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
metadata: {{version: 2.0}}
"""
TASKS = {
    "house": """
task: house
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{right}}"
metric_list: [{metric: acc}]
""",
    "words": """
task: words
output_type: loglikelihood
doc_to_target: " {{choices[right]}}"
metric_list: [{metric: perplexity}]
""",
}


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    """A folder with the tasks `house`, to choose the right answer, and `words`, how likely it is; twelve questions."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    questions = [
        {"question": f"What is item {number}?", "choices": CHOICES, "right": number % len(CHOICES)}
        for number in range(12)
    ]
    (folder / "house.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text + COMMON.format(folder=folder))
    return folder


@torch.no_grad()
def plain(systems: Systems, name: str, count: int) -> tuple[float, float]:
    """Accuracy and perplexity by a loop: log-probabilities of each choice behind the bare question."""
    right, losses = 0, []
    tokens = systems.model.tokenizer
    for number in range(count):
        question = tokens(f"What is item {number}?", add_special_tokens=False)["input_ids"]
        sums = []
        for choice in CHOICES:
            answer = tokens(f" {choice}", add_special_tokens=False)["input_ids"]
            with systems.on(name):
                logits = systems.model.network(input_ids=torch.tensor([question + answer])).logits[0]
            found = logits[len(question) - 1 : -1].log_softmax(1).gather(1, torch.tensor(answer)[:, None])
            sums.append(found.sum().item())
        wanted = number % len(CHOICES)
        right += max(range(len(CHOICES)), key=sums.__getitem__) == wanted
        losses.append(-sums[wanted])
    return right / count, math.exp(sum(losses) / count)


def test_the_harness_measures_every_system(
    tiny_model: Path,
    make_bundle: Callable[..., Bundle],
    task_folder: Path,
    trainer: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "fork")  # the harness forked a process full of threads for its error bars, and could hang
    bundle = make_bundle(tmp_path / "layer", tiny_model, scale=1.0)
    found = trainer(
        "ability", "--model", tiny_model, "--bundle", bundle.path, "--tasks", "house,words", "--task-folder",
        task_folder, "--limit", 8, "--out", tmp_path / "out",
    )  # fmt: skip
    written = json.loads((tmp_path / "out" / "ability.json").read_text())
    assert found == {"path": str(tmp_path / "out"), **written}
    assert written["systems"] == {"base": None, "layer": bundle.revision}
    model = load_model(str(tiny_model))
    systems = Systems(model, [("layer", bundle)])
    expected = {name: plain(systems, name, 8) for name in ("base", "layer")}
    assert expected["base"][1] != pytest.approx(expected["layer"][1], rel=1e-2)  # the layer does something
    for name, (accuracy, perplexity) in expected.items():
        assert written["results"][name]["house"]["acc,none"] == accuracy
        assert written["results"][name]["words"]["perplexity,none"] == pytest.approx(perplexity, rel=1e-3)
        assert written["results"][name]["words"]["perplexity_stderr,none"] > 0
    assert written["results"]["layer"]["house"].keys() == {"acc,none", "acc_stderr,none"}
    facts = {"version": 2.0, "shots": 0, "questions": 8, "higher_is_better": {"acc": True}}
    assert written["tasks"]["house"] == facts
    assert written["settings"]["limit"] == 8
    assert written["versions"]["lm-eval"][0].isdigit()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tasks", "no_such_task"], ["no_such_task", "lm-eval ls tasks"]),
        (["--tasks", " , "], ["at least one name"]),
        (["--tasks", "house", "--task-folder", "nowhere"], ["nowhere", "task files"]),
        (["--tasks", "arc_easy"], ["arc_easy", "--task-folder"]),  # the hub cannot be reached in tests
    ],
)
def test_what_cannot_be_measured_gets_a_line(
    more: list[str], words: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ability", "--model", str(tiny_model), "--out", str(tmp_path / "out"), *more]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("eul-train: ")
    assert all(word in said for word in words)
    assert not (tmp_path / "out").exists()


def test_without_the_package_the_line_says_how_to_get_it(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    assert run(["ability", "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--tasks", "arc_easy"]) == 2
    assert "pip install eul-serve[ability]" in capsys.readouterr().err


def test_the_table_has_a_column_for_each_system() -> None:
    numbers = {"acc,none": 0.25, "acc_stderr,none": 0.125, "f1,strict": 0.5}
    other = {"acc,none": 0.5, "acc_stderr,none": 0.125, "f1,strict": 1.0}
    assert table({"results": {"base": {"house": numbers}, "layer": {"house": other}}}) == [
        "task   measure    base           layer",
        "house  acc        0.250 ± 0.125  0.500 ± 0.125",
        "house  f1,strict  0.500          1.000",
    ]
