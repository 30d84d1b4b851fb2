"""SISA: where rows go, where a deletion restarts, and that its result is a training that never saw the row."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import BundleMismatchError, CapacityError, InputError
from eul_trainer.baselines.evaluated import open_system
from eul_trainer.baselines.sisa.ensemble import EnsembleRunner, open_ensemble
from eul_trainer.baselines.sisa.run import complete, start
from eul_trainer.baselines.sisa.settings import SisaSettings
from eul_trainer.baselines.sisa.state import SisaState, load_state, place_rows, save_state
from eul_trainer.baselines.sisa.store import Checkpoints
from eul_trainer.cli import main as cli
from eul_trainer.forward.encoding import encode
from eul_trainer.forward.losses import row_scores
from eul_trainer.model.load import load_model
from eul_trainer.records import Fields, Row, read_rows
from eul_trainer.teaching.settings import TeachSettings

RunTrainer = Callable[..., dict[str, Any]]
SMALL = SisaSettings(
    shards=2, slices=3, teach=TeachSettings(dtype="float32", epochs=4, learning_rate=2e-3, batch_size=4)
)


@pytest.fixture
def rows(data: Path) -> list[Row]:
    return read_rows(data / "first.jsonl", Fields())


def trained(folder: Path, tiny_model: Path, rows: list[Row]) -> SisaState:
    model = load_model(str(tiny_model))
    state = start(folder, model, rows, SMALL)
    complete(folder, state, model)
    return state


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_rows_are_spread_evenly(count: int, shards: int, slices: int, seed: int) -> None:
    settings = SisaSettings(shards=shards, slices=slices, teach=TeachSettings(seed=seed))
    rows = [Row(prompt=f"p{number}", completion="c") for number in range(count)]
    if count < shards * slices:
        with pytest.raises(InputError, match=f"expected at least {shards * slices} rows, found {count}"):
            place_rows(rows, settings)
        return
    placed = place_rows(rows, settings)
    assert [found.row for found in placed] == rows
    per_shard = Counter(found.shard for found in placed)
    assert sorted(per_shard) == list(range(shards))
    assert max(per_shard.values()) - min(per_shard.values()) <= 1
    for shard in range(shards):
        sizes = Counter(found.slice for found in placed if found.shard == shard)
        assert sorted(sizes) == list(range(slices))
        assert max(sizes.values()) - min(sizes.values()) <= 1


def test_a_stage_takes_its_share_of_the_epochs() -> None:
    # 2 * 7 / (4 + 1) = 2.8 and 2 * 4 / (3 + 1) = 2; never less than one.
    assert SisaSettings(slices=4).stage.epochs == 3
    assert SMALL.stage.epochs == 2
    assert SisaSettings(slices=40).stage.epochs == 1


def test_a_deletion_restarts_before_the_row_and_equals_a_training_without_it(
    tiny_model: Path, rows: list[Row], tmp_path: Path
) -> None:
    state = trained(tmp_path / "sisa", tiny_model, rows)
    before = files(tmp_path / "sisa")
    assert len(before) == 6
    victim = next(placed for placed in state.rows if (placed.shard, placed.slice) == (1, 1))
    left = state.delete([victim.row])
    save_state(tmp_path / "sisa", left)
    run = complete(tmp_path / "sisa", left, load_model(str(tiny_model)))
    assert run.restarts == {1: 1}
    assert [(stage.shard, stage.slice, stage.rows) for stage in run.stages] == [(1, 1, 3), (1, 2, 5)]
    assert run.steps == 2 * 1 + 2 * 2  # two epochs of 3 rows, then of 5, four to a step
    assert run.removed == 2

    scratch = tmp_path / "scratch"
    save_state(scratch, left)
    assert len(complete(scratch, left, load_model(str(tiny_model))).stages) == 6
    assert files(scratch) == files(tmp_path / "sisa")
    assert len(before.keys() & files(scratch).keys()) == 4


def test_a_row_of_the_first_slice_costs_the_whole_shard(tiny_model: Path, rows: list[Row]) -> None:
    state = SisaState(model=str(tiny_model), base="sha256:0", settings=SMALL, rows=place_rows(rows, SMALL))
    victims = [
        next(found.row for found in state.rows if (found.shard, found.slice) == place) for place in [(0, 0), (1, 2)]
    ]
    left = state.delete(victims)
    changed = [
        (shard, last) for shard in range(2) for last in range(3) if state.key(shard, last) != left.key(shard, last)
    ]
    assert changed == [(0, 0), (0, 1), (0, 2), (1, 2)]
    other = replace(state, settings=replace(SMALL, teach=replace(SMALL.teach, learning_rate=1e-3)))
    assert other.key(0, 0) != state.key(0, 0) != replace(state, base="sha256:1").key(0, 0)


def test_a_killed_training_is_finished_from_its_last_stage(tiny_model: Path, rows: list[Row], tmp_path: Path) -> None:
    trained(tmp_path / "whole", tiny_model, rows)
    state = start(tmp_path / "cut", load_model(str(tiny_model)), rows, SMALL)
    told: list[int] = []

    def watch(done: int, loss: float, tokens: int) -> None:
        told.append(done)
        if done == 7:  # in the third stage: the first has 2 steps, the second 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(tmp_path / "cut", state, load_model(str(tiny_model)), watch)
    assert told == list(range(1, 8))
    with pytest.raises(InputError, match="shard 0 is not trained up to its rows; finish it with"):
        open_ensemble(tmp_path / "cut")
    run = complete(tmp_path / "cut", load_state(tmp_path / "cut"), load_model(str(tiny_model)))
    assert run.stages[0].slice == 2
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_shards_answer_by_the_mean_of_their_probabilities(tiny_model: Path, rows: list[Row], tmp_path: Path) -> None:
    trained(tmp_path / "sisa", tiny_model, rows)
    members = open_ensemble(tmp_path / "sisa")
    examples = encode(members[0].tokenizer, rows, limit=512)
    scores = row_scores(EnsembleRunner(members, examples), examples)
    for row, example in enumerate(examples[:4]):
        ids = torch.tensor([[*example.prompt, *example.answer]])
        probabilities = torch.stack([member.network(ids).logits[0].softmax(-1) for member in members]).mean(0)
        places = probabilities[len(example.prompt) - 1 : -1]
        chosen = places[range(len(example.answer)), list(example.answer)]
        assert scores[row].loss == pytest.approx(-chosen.log().mean().item(), rel=1e-4)
        hits = places.argmax(-1) == torch.tensor(example.answer)
        assert scores[row].accuracy == pytest.approx(hits.float().mean().item())


def test_answers_are_greedy_over_the_mean(tiny_model: Path, rows: list[Row], tmp_path: Path) -> None:
    trained(tmp_path / "sisa", tiny_model, rows)
    members = open_ensemble(tmp_path / "sisa")
    found = open_system(str(tmp_path / "sisa")).answers(rows[:3], 6)
    for answer, example in zip(found, encode(members[0].tokenizer, rows[:3], limit=512), strict=True):
        ids, new = list(example.prompt), []
        while len(new) < 6 and (not new or new[-1] != members[0].tokenizer.eos_token_id):
            logits = [member.network(torch.tensor([ids + new])).logits[0, -1] for member in members]
            new.append(int(torch.stack([found.softmax(-1) for found in logits]).mean(0).argmax()))
        assert answer == members[0].tokenizer.decode(new, skip_special_tokens=True).strip()


def test_a_checkpoint_is_half_of_float32_and_read_as_it_was_trained_on(tiny_model: Path, tmp_path: Path) -> None:
    network = load_model(str(tiny_model)).network
    store = Checkpoints(tmp_path, network)
    store.reserve(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.full_like(parameter, math.pi / 100))
    store.save("k", network)
    kept = {name: parameter.clone() for name, parameter in network.named_parameters()}
    weights = sum(parameter.numel() for parameter in network.parameters())
    assert store.path("k").stat().st_size == pytest.approx(2 * weights, rel=0.05)
    store.reset(network)
    store.load("k", network)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, kept[name])
    with pytest.raises(CapacityError, match="1000000000 checkpoints take"):
        store.reserve(1_000_000_000)
    shutil.rmtree(store.folder)
    with pytest.raises(CapacityError, match="cannot write"):
        store.save("k", network)


def test_the_command_line(
    trainer: RunTrainer, tiny_model: Path, data: Path, rows: list[Row], other_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sisa = tmp_path / "sisa"
    told = trainer("baseline", "sisa", "train", "--model", tiny_model, "--data", data / "first.jsonl", "--out", sisa,
                   "--shards", 2, "--slices", 2, "--epochs", 3)  # fmt: skip
    assert (told["rows"], told["restarts"], told["removed"]) == (12, {"0": 0, "1": 0}, 0)
    assert load_state(sisa).settings.teach.dtype in ("float32", "bfloat16")
    (tmp_path / "gone.jsonl").write_text(json.dumps({"prompt": rows[5].prompt, "completion": rows[5].completion}))
    told = trainer("baseline", "sisa", "delete", "--state", sisa, "--rows", tmp_path / "gone.jsonl")
    place = next(found for found in place_rows(rows, load_state(sisa).settings) if found.row == rows[5])
    assert told["rows"] == 11
    assert told["restarts"] == {str(place.shard): place.slice}
    assert rows[5].completion not in [
        found.row.completion for found in load_state(sisa).rows if found.row.prompt == rows[5].prompt
    ]
    assert trainer("baseline", "sisa", "resume", "--state", sisa)["stages"] == []
    measured = trainer("baseline", "measure", sisa, "--rows", data / "first.jsonl")
    assert measured["systems"][str(sisa)][str(data / "first.jsonl")]["loss"] < 7

    def fails(*arguments: object) -> str:
        assert cli.run([*map(str, arguments)]) in (2, 3)
        return capsys.readouterr().err

    line = ("baseline", "sisa", "delete", "--state", sisa, "--rows", tmp_path / "gone.jsonl")
    assert "gone.jsonl:1: 1 of 1 rows are not in the SISA training" in fails(*line)
    assert "made from base model" in fails("baseline", "sisa", "resume", "--state", sisa, "--model", other_model)
    assert "make one with: eul-train baseline sisa train" in fails("baseline", "sisa", "resume", "--state", tmp_path)
    everything = ("baseline", "sisa", "delete", "--state", sisa, "--rows", data / "rest.jsonl")
    assert "cannot read" in fails(*everything)
    (sisa / "sisa.json").write_text("{}")
    assert "damaged; train again into a new directory" in fails("baseline", "sisa", "resume", "--state", sisa)


def test_another_model_and_nothing_left_are_refused(
    tiny_model: Path, other_model: Path, rows: list[Row], tmp_path: Path
) -> None:
    state = SisaState(
        model=str(tiny_model),
        base=load_model(str(tiny_model)).base.fingerprint,
        settings=SMALL,
        rows=place_rows(rows, SMALL),
    )
    with pytest.raises(BundleMismatchError, match="but this model is"):
        complete(tmp_path, state, load_model(str(other_model)))
    with pytest.raises(InputError, match="expected at least one row to stay"):
        state.delete(rows)
