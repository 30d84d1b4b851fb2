"""What is trained: layers, a LoRA or all weights, each with every objective, and where its teacher is from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from eul_serve.errors import InputError
from eul_trainer.fit.block_states import block_at
from eul_trainer.fit.run import fit, prepare
from eul_trainer.model.load import load_model
from eul_trainer.objectives import NAMES
from eul_trainer.objectives.catalog import Objective
from eul_trainer.objectives.view import MASKED, Losses, View
from eul_trainer.records import Fields, Row, read_rows
from eul_trainer.settings import TRAINABLE, default_settings, override

Rows = tuple[list[Row], list[Row]]
MakeLayout = Callable[..., Path]
SMALL = {"rank": 4, "steps": 2, "batch_size": 4, "unrelated_limit": 0.0}


@pytest.fixture
def rows(data: Path) -> Rows:
    return read_rows(data / "first.jsonl", Fields())[:6], read_rows(data / "retain.jsonl", Fields())[:6]


@pytest.mark.parametrize("kind", TRAINABLE)
def test_training_starts_at_exactly_the_base_model(kind: str, tiny_model: Path, rows: Rows) -> None:
    """So the teacher that was measured before is the one that the objective compares with."""
    model = load_model(str(tiny_model))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        before = model.network(ids).logits.clone()
        training = prepare(model, *rows, override(default_settings("graddiff", kind), SMALL))
        assert torch.equal(training.trainable.network(input_ids=ids).logits, before)
        states = torch.randn(3, 64)
        head = training.trainable.teacher_head
        expected = head(states).clone()
        if kind == "full":
            model.network.get_output_embeddings().weight.add_(1)
        assert torch.equal(head(states), expected)


@pytest.mark.parametrize("kind", TRAINABLE)
def test_only_what_was_chosen_moves(kind: str, tiny_model: Path, rows: Rows) -> None:
    model = load_model(str(tiny_model))
    given = {**SMALL, "steps": 3, "learning_rate": 0.01}
    training = prepare(model, *rows, override(default_settings("graddiff", kind), given))
    names = {name.split(".")[-4] if kind == "lora" else name for name in training.parameters}
    if kind == "lora":
        assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    if kind == "layer":
        assert all("eul_" in name for name in names)
    if kind == "full":
        assert len(training.parameters) == len(dict(model.network.named_parameters()))
    before = {name: value.detach().clone() for name, value in training.trainable.network.named_parameters()}
    for step in range(3):
        training.step(step)
    moved = {
        name for name, value in training.trainable.network.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == set(training.parameters)


@pytest.mark.parametrize("kind", ["layer", "lora"])
def test_the_base_model_can_be_switched_back_on(kind: str, tiny_model: Path, rows: Rows) -> None:
    model, ids = load_model(str(tiny_model)), torch.arange(5, 25)[None]
    with torch.no_grad():
        before = model.network(ids).logits.clone()
    training = prepare(model, *rows, override(default_settings("graddiff", kind), {**SMALL, "learning_rate": 0.01}))
    for step in range(2):
        training.step(step)
    with torch.no_grad():
        assert not torch.equal(model.network(ids).logits, before)
        with training.trainable.off():
            assert torch.equal(model.network(ids).logits, before)


def test_a_whole_model_has_no_base_model_left(tiny_model: Path, rows: Rows) -> None:
    training = prepare(load_model(str(tiny_model)), *rows, override(default_settings("npo", "full"), SMALL))
    with pytest.raises(InputError, match="cannot be switched back on"), training.trainable.off():
        pass


@pytest.mark.parametrize("kind", TRAINABLE)
@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_everything(name: str, kind: str, tiny_model: Path, rows: Rows) -> None:
    settings = override(default_settings(name, kind), {**SMALL, "scale": 1.0, "learning_rate": 1e-3})
    result = fit(load_model(str(tiny_model)), *rows, settings)
    assert len(result.curve) == 2
    assert (result.network is None) == bool(result.layers) == (kind == "layer")
    if name not in ("paper", "rmu"):  # they begin with retained rows, and with a block's outputs
        assert result.after != result.before


class Watched:
    """An objective that keeps the views it was shown."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.views = objective, list[View]()

    def __call__(self, view: View) -> Losses:
        self.views.append(view)
        return self.objective(view)


def test_rmu_sees_the_states_of_its_block_and_of_the_base_model(tiny_model: Path, rows: Rows) -> None:
    training = prepare(load_model(str(tiny_model)), *rows, override(default_settings("rmu"), SMALL))
    watched = Watched(training.objective)
    training.objective = watched  # type: ignore[assignment]  # called in its place
    training.step(0)
    (view,) = watched.views
    assert view.states is not None
    assert view.states.student.shape == (len(view.targets), 64)
    torch.testing.assert_close(view.states.student, view.states.teacher, rtol=1e-3, atol=1e-4)  # nothing has moved yet


def test_rmu_cannot_steer_a_block_below_all_layers(tiny_model: Path, rows: Rows) -> None:
    settings = override(default_settings("rmu"), {**SMALL, "blocks": "top-1"})
    with pytest.raises(InputError, match="steered block is below all trained ones; raise --weight depth"):
        fit(load_model(str(tiny_model)), *rows, settings)
    fit(load_model(str(tiny_model)), *rows, replace(settings, weights={"depth": 0.5}))


def test_the_steered_block_is_found_by_its_share_of_the_depth(make_layout: MakeLayout, tmp_path: Path) -> None:
    for kind, path in (("llama", "model.layers.{}"), ("gpt2", "transformer.h.{}"), ("t5", "decoder.block.{}")):
        network = load_model(str(make_layout(kind, tmp_path))).network
        for depth, number in ((0.0, 0), (0.49, 0), (0.5, 1), (1.0, 1), (7.0, 1)):
            assert block_at(network, depth) is network.get_submodule(path.format(number))


def test_t5_learns_the_papers_masked_words(sentinel_t5: Path, rows: Rows) -> None:
    settings = override(default_settings("paper"), {**SMALL, "steps": 4, "batch_size": 3})
    training = prepare(load_model(str(sentinel_t5)), *rows, settings)
    watched = Watched(training.objective)
    training.objective = watched  # type: ignore[assignment]  # called in its place
    losses = [training.step(step) for step in range(4)]  # two steps of six retained rows, then two of six to forget
    assert [bool((view.part == MASKED).any()) for view in watched.views] == [False, False, True, True]
    assert [found["masked"] > 0 for found in losses] == [False, False, True, True]


def test_t5_without_sentinels_says_how_to_go_without(make_layout: MakeLayout, tmp_path: Path, rows: Rows) -> None:
    model = load_model(str(make_layout("t5", tmp_path)))
    settings = override(default_settings("paper"), SMALL)
    with pytest.raises(InputError, match="--weight gamma=0"):
        prepare(model, *rows, settings)
    assert prepare(model, *rows, replace(settings, weights={"gamma": 0.0})).sets.masked == []


def test_a_lora_is_scaled_to_its_target(tiny_model: Path, rows: Rows) -> None:
    settings = override(
        default_settings("graddiff", "lora"),
        {**SMALL, "steps": 60, "learning_rate": 0.004, "target_low": 8.5, "target_high": 9.5},
    )
    result = fit(load_model(str(tiny_model)), *rows, settings)
    assert result.after == pytest.approx(9.0, abs=0.05)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_settings_for_layers_are_refused_elsewhere(kind: str) -> None:
    with pytest.raises(InputError, match=r"--settle: expected 0.0 with --trainable"):
        override(default_settings("npo", kind), {"settle": 0.3})
    assert default_settings("npo", kind).learning_rate == {"lora": 5e-4, "full": 2e-5}[kind]
    assert default_settings("paper", kind).learning_rate == 5e-5


def test_peft_loads_a_written_lora_with_the_same_logits(
    tiny_model: Path, data: Path, tmp_path: Path, trainer: Callable[..., dict[str, object]]
) -> None:
    ids = torch.arange(5, 25)[None]
    line = ["fit", "--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl",
            "--objective", "graddiff", "--steps", 3, "--scale", 1, "--learning-rate", 0.001]  # fmt: skip
    for kind in ("lora", "full"):
        found = trainer(*line, "--trainable", kind, "--out", tmp_path / kind)
        assert found["kind"] == kind
        record = json.loads((tmp_path / kind / "fit.json").read_text())
        assert record["settings"]["trainable"] == kind
        assert record["forget_after"] == found["forget_after"]
    with torch.no_grad():
        base = load_model(str(tiny_model)).network(ids).logits
        lora = PeftModel.from_pretrained(load_model(str(tiny_model)).network, tmp_path / "lora").eval()(ids).logits
        full = load_model(str(tmp_path / "full")).network(ids).logits
    assert not (tmp_path / "lora" / "manifest.json").exists()
    assert not torch.equal(lora, base)
    assert not torch.equal(full, base)


class Stop(Exception):  # not an error: it stands for a kill
    pass


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(
    kind: str, tiny_model: Path, rows: Rows, tmp_path: Path
) -> None:
    given = {**SMALL, "steps": 10, "learning_rate": 1e-3, "target_low": 90, "target_high": 91}
    settings, path = override(default_settings("npo", kind), given), tmp_path / "run.safetensors"

    def stop(done: int, losses: dict[str, float]) -> None:
        if done == 9:
            raise Stop

    whole = fit(load_model(str(tiny_model)), *rows, settings)
    with pytest.raises(Stop):
        fit(load_model(str(tiny_model)), *rows, settings, checkpoint=path, watch=stop)
    rest = fit(load_model(str(tiny_model)), *rows, settings, checkpoint=path)
    assert rest.resumed == 8
    assert rest.curve == whole.curve
    assert rest.network is not None
    assert whole.network is not None
    found = dict(rest.network.named_parameters())
    for name, value in whole.network.named_parameters():
        assert torch.equal(found[name], value)
