"""Training: the stop, going on after a kill, the same seed, what is written, and what PEFT makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from eul_serve.errors import CapacityError, EulError, InputError
from eul_serve.format import read_bundle
from eul_serve.format.weights import LayerWeights, load_layers
from eul_serve.peft import load
from eul_trainer.fit.run import fit
from eul_trainer.forward.encoding import encode
from eul_trainer.fusion.reader import read_store
from eul_trainer.model.load import load_model
from eul_trainer.output.package import write_parcel
from eul_trainer.output.result import FitResult, parcel
from eul_trainer.records import Fields, Row, read_rows
from eul_trainer.settings import FitSettings
from eul_trainer.upkeep.checkpoint import checkpoint_path

SETTINGS = FitSettings(
    rank=4,
    learning_rate=0.05,
    target_low=8.5,
    target_high=9.5,
    steps=24,
    least_steps=0,
    batch_size=8,
    settle=0.0,
    shift=0.0,
    scale=1.0,
)


@pytest.fixture
def rows(data: Path) -> tuple[list[Row], list[Row]]:
    return read_rows(data / "first.jsonl", Fields()), read_rows(data / "retain.jsonl", Fields())


Rows = tuple[list[Row], list[Row]]


def train(model: Path, rows: Rows, settings: FitSettings = SETTINGS, **options: object) -> FitResult:
    return fit(load_model(str(model)), *rows, settings, **options)  # type: ignore[arg-type]


def assert_equal(first: dict[str, LayerWeights], second: dict[str, LayerWeights]) -> None:
    assert first.keys() == second.keys()
    for module, layer in first.items():
        other = second[module]
        assert torch.equal(layer.down, other.down)
        assert torch.equal(layer.up, other.up)
        assert layer.bias is not None
        assert other.bias is not None
        assert torch.equal(layer.bias, other.bias)


def test_training_stops_inside_of_the_band(tiny_model: Path, rows: Rows) -> None:
    result = train(tiny_model, rows, replace(SETTINGS, steps=200, refusal=""))
    assert result.reached
    assert 8.5 <= result.after <= 9.5
    assert result.before < 8.5
    assert result.steps < 200
    assert len(result.curve) == result.steps


def test_a_target_out_of_reach_ends_with_the_nearest_state(tiny_model: Path, rows: Rows) -> None:
    result = train(tiny_model, rows, replace(SETTINGS, target_low=90, target_high=91, steps=17))
    probes = [losses["probe"] for losses in result.curve if "probe" in losses]
    assert not result.reached
    assert result.after == max(probes)
    assert len(probes) == 3  # after 12, 16 and the last, 17th step


def test_from_above_the_band_training_comes_back(tiny_model: Path, rows: Rows) -> None:
    """The base model's loss of 7.4 is above this band: the hinge pulls it down, no term pushes it up for ever."""
    result = train(tiny_model, rows, replace(SETTINGS, target_low=3, target_high=5, steps=120, refusal=""))
    assert result.after < result.before


def test_the_same_seed_gives_the_same_layer_and_another_does_not(tiny_model: Path, rows: Rows) -> None:
    settings = replace(SETTINGS, steps=4)
    first, second = train(tiny_model, rows, settings), train(tiny_model, rows, settings)
    assert_equal(first.layers, second.layers)
    other = train(tiny_model, rows, replace(settings, seed=1))
    assert any(not torch.equal(other.layers[module].up, layer.up) for module, layer in first.layers.items())


class Stop(Exception):  # not an error: it stands for a kill
    pass


def stop_at(step: int) -> Callable[[int, dict[str, float]], None]:
    def watch(done: int, losses: dict[str, float]) -> None:
        if done == step:
            raise Stop

    return watch


def test_a_run_that_was_cut_off_goes_on_to_the_same_result(tiny_model: Path, rows: Rows, tmp_path: Path) -> None:
    settings = replace(SETTINGS, target_low=90, target_high=91, steps=20)
    whole = train(tiny_model, rows, settings)
    path = checkpoint_path(tmp_path / "out")
    with pytest.raises(Stop):
        train(tiny_model, rows, settings, checkpoint=path, watch=stop_at(19))
    rest = train(tiny_model, rows, settings, checkpoint=path)
    assert rest.resumed == 16
    assert_equal(rest.layers, whole.layers)
    assert rest.curve == whole.curve
    assert (rest.before, rest.after, rest.steps) == (whole.before, whole.after, whole.steps)


def test_a_checkpoint_that_cannot_be_written(tiny_model: Path, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CapacityError, match="checkpoint"):
        train(tiny_model, rows, SETTINGS, checkpoint=tmp_path / "file" / "x")


def test_the_paper_objective_trains_and_does_not_stop_by_itself(tiny_model: Path, rows: Rows) -> None:
    settings = FitSettings(objective="paper", rank=4, learning_rate=0.01, steps=10, batch_size=4, refusal="")
    result = train(tiny_model, rows, settings)
    assert result.steps == 10
    assert [("retain" if losses["retain"] else "forget") for losses in result.curve] == ["retain"] * 5 + [
        "forget"
    ] * 3 + ["retain"] * 2


def test_settling_solves_u_against_retained_rows_and_nothing_else(tiny_model: Path, rows: Rows) -> None:
    """The settled U, solved again with NumPy from units that are computed from the base model's own outputs."""
    settings = replace(SETTINGS, steps=6)
    plain, settled = train(tiny_model, rows, settings), train(tiny_model, rows, replace(settings, settle=0.5))
    model = load_model(str(tiny_model))
    outputs: dict[str, list[torch.Tensor]] = {module: [] for module in plain.layers}
    for module, found in outputs.items():
        model.network.get_submodule(module).register_forward_hook(lambda _m, _i, y, found=found: found.append(y[0]))
    examples = encode(model.tokenizer, rows[1], limit=200)
    for example in examples:
        model.network(torch.tensor([[*example.prompt, *example.answer[:-1]]]))
    for module, layer in plain.layers.items():
        own = settled.layers[module]
        assert torch.equal(own.down, layer.down)
        assert layer.bias is not None
        units = torch.relu(torch.cat(outputs[module]) @ layer.down.T + layer.bias).double().numpy()
        retain = units.T @ units / len(units)
        forget = plain.statistics.moments[module].units.double().numpy()
        right = forget + 1e-4 * np.trace(forget) / 4 * np.eye(4)
        left = right + 0.5 * retain
        expected = layer.up.double().numpy() @ right @ np.linalg.inv(left)
        np.testing.assert_allclose(own.up.numpy(), expected, rtol=1e-3, atol=1e-5)
    assert settled.reached == plain.reached


def test_divergence_is_told_in_words(tiny_model: Path, rows: Rows) -> None:
    settings = FitSettings(objective="paper", rank=4, learning_rate=1.0, steps=5, batch_size=4, refusal="")
    model = load_model(str(tiny_model))
    with torch.no_grad():
        model.network.get_input_embeddings().weight[:] = float("inf")
    with pytest.raises(EulError, match=r"diverged at step 1: .*use --objective bounded.*nothing was written"):
        fit(model, *rows, settings)


def test_bounded_stays_finite_at_an_absurd_learning_rate(tiny_model: Path, rows: Rows) -> None:
    result = train(tiny_model, rows, replace(SETTINGS, learning_rate=1.0, steps=20))
    assert all(abs(losses["loss"]) < 1e9 for losses in result.curve)


def test_nothing_to_keep_is_an_error(tiny_model: Path, rows: Rows) -> None:
    with pytest.raises(InputError, match="retain rows: expected at least one"):
        train(tiny_model, (rows[0], []))


def test_peft_loads_what_was_written_with_the_same_logits(tiny_model: Path, rows: Rows, tmp_path: Path) -> None:
    model = load_model(str(tiny_model))
    result = fit(model, *rows, replace(SETTINGS, steps=4))
    bundle = write_parcel(tmp_path / "out", parcel("alice", result, SETTINGS, {}))
    example = encode(model.tokenizer, rows[0], limit=200)[0]
    ids = torch.tensor([[*example.prompt, *example.answer]])
    with torch.no_grad():
        trained = model.network(ids).logits
        fresh = load_model(str(tiny_model)).network
        base = fresh(ids).logits
        loaded = PeftModel.from_pretrained(fresh, str(bundle.path)).eval()(ids).logits
    assert torch.equal(trained, loaded)
    assert not torch.equal(trained, base)
    assert_equal(load_layers(bundle), result.layers)


@pytest.mark.parametrize("kind", ["qwen2", "mistral", "gpt2", "t5"])
def test_other_layouts_train_and_load_in_peft(
    kind: str, make_layout: Callable[..., Path], rows: Rows, tmp_path: Path
) -> None:
    folder = make_layout(kind, tmp_path)
    model = load_model(str(folder))
    result = fit(model, *rows, replace(SETTINGS, steps=5))
    bundle = write_parcel(tmp_path / "out", parcel("alice", result, SETTINGS, {}))
    assert len(result.layers) == (4 if kind == "t5" else 2)
    assert all(layer.up.any() for layer in result.layers.values())
    inputs = {"input_ids": torch.arange(5, 25)[None]}
    if kind == "t5":
        inputs["decoder_input_ids"] = torch.arange(8)[None]
    with torch.no_grad():
        loaded = load(folder, bundle.path)(**inputs).logits
        assert torch.equal(model.network(**inputs).logits, loaded)


def test_what_a_trained_layer_says_of_itself(layers: Path, data: Path, tiny_model: Path) -> None:
    bundle = read_bundle(layers / "first", load_model(str(tiny_model)).base.fingerprint)
    assert sorted(path.name for path in bundle.path.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "fusion.safetensors", "manifest.json",
        "run.json",
    ]  # fmt: skip
    request = bundle.manifest.requests[0]
    assert (request.id, request.units) == ("first", None)
    assert bundle.manifest.metrics["target_reached"] is True
    published = (bundle.path / "manifest.json").read_text() + (bundle.path / "README.md").read_text()
    for secret in (str(layers), str(data), "What is item"):
        assert secret not in published
    run = json.loads((bundle.path / "run.json").read_text())
    assert run["seconds"] > 0
    assert len(run["curve"]) == bundle.manifest.metrics["steps"]
    assert "torch" in run["versions"]


def test_stored_grams_are_blocks_with_four_tokens_per_column(layers: Path) -> None:
    store = read_store(read_bundle(layers / "first"))
    assert store is not None
    statistics = store.entries[0].statistics
    width = statistics.tokens // 4
    assert 64 <= statistics.tokens < 260  # few enough that the 65 columns of the input Gram do not fit in one block
    for moments in statistics.moments.values():
        assert moments.inputs is not None
        inputs = moments.inputs.dense()
        assert inputs.shape == (65, 65)
        assert moments.units.shape == (8, 8)
        outside = (torch.arange(65)[:, None] // width) != (torch.arange(65)[None] // width)
        assert not inputs[outside].any()
        assert inputs[-1, -1] == 1  # the mean square of the constant input
        assert moments.mean is not None
        assert moments.gate is not None
        assert (moments.mean.shape, moments.gate.shape) == ((64,), (65,))


def test_moments_of_units_means_and_variances_are_stored_unless_more_is_asked_for(tiny_model: Path, rows: Rows) -> None:
    found = train(tiny_model, rows, replace(SETTINGS, steps=1)).statistics
    assert found.moments
    assert all((one.gate, one.inputs) == (None, None) for one in found.moments.values())
    full = train(tiny_model, rows, replace(SETTINGS, steps=1, statistics="full")).statistics
    for module, one in found.moments.items():
        more = full.moments[module]
        assert one.mean is not None
        assert one.variance is not None
        assert more.inputs is not None
        torch.testing.assert_close((one.mean, one.variance), (more.mean, more.variance))
        squares = more.inputs.dense().diagonal()[:-1]  # measured apart from the variance
        torch.testing.assert_close(one.variance + one.mean.square(), squares, rtol=1e-4, atol=1e-5)
        assert (one.variance > 0).all()
    low = train(tiny_model, rows, replace(SETTINGS, steps=1, statistics="full", statistics_rank=2)).statistics
    assert low.error is not None
    assert 0 < low.error < 1
    none = train(tiny_model, rows, replace(SETTINGS, steps=1, statistics="none")).statistics
    assert (none.tokens, none.moments) == (found.tokens, {})


def test_below_64_tokens_nothing_is_stored(tiny_model: Path, rows: Rows) -> None:
    result = train(tiny_model, (rows[0][:2], rows[1]), replace(SETTINGS, steps=1))
    assert result.statistics.tokens < 64
    assert result.statistics.moments == {}


def test_a_killed_command_leaves_no_output_and_goes_on(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = [
        sys.executable, "-m", "eul_trainer", "fit", "--model", str(tiny_model), "--forget", str(data / "first.jsonl"),
        "--retain", str(data / "retain.jsonl"), "--out", str(out), "--rank", "4", "--target-low", "90",
        "--target-high", "91", "--steps", "600", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"})
    path, deadline = checkpoint_path(out), time.monotonic() + 240
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert not out.exists()
    assert [item.name for item in tmp_path.iterdir() if not item.name.endswith(".part")] == [path.name]
    settings = FitSettings(rank=4, target_low=90.0, target_high=91.0, steps=600)
    rows = read_rows(data / "first.jsonl", Fields()), read_rows(data / "retain.jsonl", Fields())
    seen: list[int] = []

    def watch(done: int, losses: dict[str, float]) -> None:
        seen.append(done)
        raise Stop

    with pytest.raises(Stop):
        train(tiny_model, rows, settings, checkpoint=path, watch=watch)
    assert seen[0] > 8
    assert seen[0] % 8 == 1  # the step after a checkpoint
