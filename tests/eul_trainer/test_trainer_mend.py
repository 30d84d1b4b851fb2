"""MEND: gradient factors, the editor's start, an edit as a hook and as weights, and what its training brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.errors import InputError
from eul_trainer.baselines.mend.editor import Editor, Transform
from eul_trainer.baselines.mend.factors import Factors, apply, edited, edited_maps, gradient_factors
from eul_trainer.baselines.mend.run import MendRun, editor_loss, mend, reversed_answers
from eul_trainer.baselines.mend.settings import MendSettings
from eul_trainer.baselines.methods import Split
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import load_model
from eul_trainer.records import Fields, Row, read_rows
from eul_trainer.teaching.run import encode_taught, teach
from eul_trainer.teaching.settings import TeachSettings

RunTrainer = Callable[..., dict[str, Any]]


@pytest.fixture
def runner(tiny_model: Path, data: Path) -> Runner:
    model = load_model(str(tiny_model))
    return Runner(model, encode_taught(model, read_rows(data / "first.jsonl", Fields())))


@pytest.fixture
def rows(data: Path) -> list[Row]:
    return read_rows(data / "first.jsonl", Fields())


def test_the_maps_of_the_last_blocks_are_edited(
    tiny_model: Path, make_layout: Callable[..., Path], tmp_path: Path
) -> None:
    network = load_model(str(tiny_model)).network
    last = [f"model.layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")]
    assert edited_maps(network, 1) == last
    assert len(edited_maps(network, 3)) == 6
    gpt2 = load_model(str(make_layout("gpt2", tmp_path))).network
    assert edited_maps(gpt2, 1) == ["transformer.h.1.mlp.c_fc", "transformer.h.1.mlp.c_proj"]


@pytest.mark.parametrize("layout", ["llama", "gpt2", "t5"])
def test_factors_multiply_to_the_gradient(
    layout: str, make_layout: Callable[..., Path], rows: list[Row], tmp_path: Path
) -> None:
    model = load_model(str(make_layout(layout, tmp_path)))
    examples = encode_taught(model, rows[:2])
    runner = Runner(model, examples)
    paths = edited_maps(model.network, 2)
    factors = gradient_factors(runner, examples, paths)
    weights = [model.network.get_submodule(path).weight.requires_grad_(True) for path in paths]
    total = torch.zeros(())
    for example in examples:  # one row alone: a row's factors do not depend on the rows beside it
        batch = runner.batch([example])
        logits = runner.logits(runner.hidden(batch))
        total = total + torch.nn.functional.cross_entropy(logits, batch.targets)
    expected = torch.autograd.grad(total, weights)
    for path, gradient in zip(paths, expected, strict=True):
        product = factors[path].deltas.T @ factors[path].inputs
        torch.testing.assert_close(product.T if layout == "gpt2" else product, gradient, rtol=1e-3, atol=1e-5, msg=path)


def test_an_edit_by_hooks_is_the_edit_of_weights(runner: Runner, rows: list[Row]) -> None:
    network = runner.network
    path = edited_maps(network, 1)[2]
    generator = torch.Generator().manual_seed(0)
    change = Factors(
        inputs=torch.randn(3, 128, generator=generator), deltas=torch.randn(3, 64, generator=generator) * 0.01
    )
    batch = runner.batch(encode_taught(runner.model, rows[:2]))
    with torch.no_grad(), edited(network, {path: change}):
        hooked = runner.hidden(batch)
    before = network.get_submodule(path).weight.clone()
    apply(network, {path: change})
    expected = before - sum(torch.outer(change.deltas[token], change.inputs[token]) for token in range(3))
    torch.testing.assert_close(network.get_submodule(path).weight, expected)
    with torch.no_grad():
        torch.testing.assert_close(runner.hidden(batch), hooked, rtol=1e-4, atol=1e-5)


def test_an_untrained_editor_steps_along_the_normalised_gradient(runner: Runner, rows: list[Row]) -> None:
    paths = edited_maps(runner.network, 2)
    shapes = {path: tuple(runner.network.get_submodule(path).weight.shape[::-1]) for path in paths}
    editor = Editor(shapes, MendSettings(rank=4, step_size=0.01))  # type: ignore[arg-type]
    assert sorted(transform.shape for transform in editor.transforms) == [(64, 128), (128, 64)]
    factors = gradient_factors(runner, encode_taught(runner.model, rows[:4]), paths)
    editor.calibrate([factors])
    for path, change in editor(factors).items():
        given = factors[path]
        for found, plain, step in ((change.inputs, given.inputs, 1.0), (change.deltas, given.deltas, 0.01)):
            normal = (plain - plain.mean(0)) / (plain.std(0) + 1e-7)
            # The relu of a zero is zero, so that both residual layers pass z on.
            torch.testing.assert_close(found, step * normal, rtol=1e-4, atol=1e-5)


def test_the_transform_is_two_residual_layers_with_a_scale_and_offset_of_each_weight() -> None:
    torch.manual_seed(0)
    transform = Transform((2, 1), count=2, rank=2)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.copy_(torch.randn_like(parameter))
    factors = Factors(inputs=torch.randn(5, 2), deltas=torch.randn(5, 1))
    z = torch.cat([factors.inputs, factors.deltas], -1) / (1 + 1e-7)
    s, o = transform.scale[1], transform.offset[1]
    h = z + torch.relu(s[0] * (z @ transform.down[0].T @ transform.up[0].T + transform.bias) + o[0])
    g = h + torch.relu(s[1] * (h @ transform.down[1].T @ transform.up[1].T) + o[1])
    found = transform(1, factors)
    torch.testing.assert_close(torch.cat([found.inputs, found.deltas], -1), g)


def test_the_loss_weighs_edits_against_divergence_elsewhere(runner: Runner, rows: list[Row]) -> None:
    examples = encode_taught(runner.model, rows)
    paths = edited_maps(runner.network, 1)
    shapes = {path: tuple(runner.network.get_submodule(path).weight.shape[::-1]) for path in paths}
    editor = Editor(shapes, MendSettings(rank=4, step_size=1e-12))  # type: ignore[arg-type]
    batch = runner.batch(examples[:3])
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(runner.logits(runner.hidden(batch)), batch.targets)
    # A step of nearly nothing leaves the divergence at zero and the edits' loss where it was.
    loss = editor_loss(editor, runner, examples[:3], examples[3:6], 0.25)
    assert loss.item() == pytest.approx(0.25 * plain.item(), rel=1e-4)
    bold = Editor(shapes, MendSettings(rank=4, step_size=0.1))  # type: ignore[arg-type]
    zero = editor_loss(bold, runner, examples[:3], examples[3:6], 0.0).item()
    assert zero > 1e-3  # what is left is the divergence


def test_labels_are_reversed_and_free_text_is_replaced() -> None:
    known = [Row(prompt=str(number), completion=label) for number, label in enumerate(["good", "bad", "good"])]
    assert [row.completion for row in reversed_answers(known, known, "none")] == ["bad", "good", "bad"]
    free = [Row(prompt=str(number), completion=f"text {number}") for number in range(9)]
    assert {row.completion for row in reversed_answers(free, free, "none")} == {"none"}
    assert [row.prompt for row in reversed_answers(free, free, "none")] == [row.prompt for row in free]


def test_a_trained_editor_edits_with_less_harm(tiny_model: Path, rows: list[Row]) -> None:
    split = Split(forget=rows[:2], retain=rows[2:])
    settings = MendSettings(
        steps=40, batch_size=2, rank=16, learning_rate=1e-3, answer="It is a stone.", step_size=1e-3
    )

    def run() -> tuple[MendRun, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        model = load_model(str(tiny_model))
        teach(model, rows, TeachSettings(dtype="float32", epochs=10, learning_rate=3e-3))
        before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        return mend(model, split, settings), before, model.network.state_dict()

    first, before, after = run()
    assert sum(first.losses[-5:]) < 0.8 * sum(first.losses[:5])
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{path}.weight" for path in first.maps}
    again, _, same = run()
    assert again.losses == first.losses
    assert all(torch.equal(tensor, same[name]) for name, tensor in after.items())


def test_the_command_writes_a_model(trainer: RunTrainer, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "edited"
    told = trainer("baseline", "mend", "--model", tiny_model, "--forget", data / "first.jsonl",
                   "--retain", data / "retain.jsonl", "--out", out, "--steps", 3, "--rank", 4)  # fmt: skip
    record = json.loads((out / "baseline.json").read_text())
    assert (told["method"], told["steps"], told["forget_rows"], told["rows"]) == ("mend", 3, 12, 20)
    assert len(record["losses"]) == 3
    assert record["settings"]["rank"] == 4
    assert load_model(str(out)).base.fingerprint != load_model(str(tiny_model)).base.fingerprint


def test_settings_out_of_range_name_the_option() -> None:
    for name, value in {
        "blocks": 0,
        "rank": 0,
        "steps": 0,
        "edit_weight": 0.0,
        "step_size": 0.0,
        "answer": " ",
    }.items():
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')}: expected "):
            MendSettings(**{name: value})  # type: ignore[arg-type]
