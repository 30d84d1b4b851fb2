"""Settling a trained layer: the shift of its units, the solve on what is measured anew, and nothing at zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eul_serve.peft import layers_of
from eul_trainer.fit import settle as settle_
from eul_trainer.fit.finish import finish
from eul_trainer.fit.run import prepare
from eul_trainer.fit.settle import forgotten_moments, retained_moments, settle
from eul_trainer.fit.training import Training
from eul_trainer.model.load import load_model
from eul_trainer.moments.gating import gate_of
from eul_trainer.records import Fields, read_rows
from eul_trainer.settings import FitSettings
from eul_trainer.upkeep.checkpoint import RunState


@pytest.fixture
def training(tiny_model: Path, data: Path) -> Training:
    """A run whose layers are random instead of trained."""
    rows = [read_rows(data / f"{name}.jsonl", Fields()) for name in ("first", "retain")]
    run = prepare(load_model(str(tiny_model)), rows[0], rows[1], FitSettings(rank=4))
    draw = torch.Generator().manual_seed(0)
    for layer in layers_of(run.trainable.network).values():
        layer.up.copy_(torch.randn(layer.up.shape, generator=draw) * 0.1)
        layer.down.copy_(torch.randn(layer.down.shape, generator=draw) * 0.1)
    return run


def weights(training: Training) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    found = {}
    for path, layer in layers_of(training.trainable.network).items():
        assert layer.bias is not None
        found[path] = (layer.down.clone(), layer.up.clone(), layer.bias.clone())
    return found


def test_nothing_is_moved_at_zero(training: Training) -> None:
    before = weights(training)
    settle(training, 0.0, 0.0)
    after = weights(training)
    assert all(torch.equal(a, b) for path in before for a, b in zip(before[path], after[path], strict=True))


def test_retained_rows_are_measured_on_the_base_model(training: Training) -> None:
    before = weights(training)
    found = retained_moments(training, inputs=True)
    assert all(torch.equal(before[path][1], weights(training)[path][1]) for path in before)
    for layer in layers_of(training.trainable.network).values():
        layer.up.zero_()
    for path, moments in retained_moments(training, inputs=True).items():
        torch.testing.assert_close(moments.inputs, found[path].inputs, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(forgotten_moments(training, inputs=True)[path].inputs, found[path].inputs)


def test_inputs_that_were_not_asked_for_are_not_taken_for_zero(training: Training) -> None:
    found = retained_moments(training, inputs=False)
    full = retained_moments(training, inputs=True)
    for path, moments in found.items():
        torch.testing.assert_close(moments.units, full[path].units, rtol=0, atol=0)
        with pytest.raises(ValueError, match="not measured"):
            _ = moments.inputs


def test_units_are_shifted_and_then_u_is_solved_on_the_shifted_units(training: Training) -> None:
    """By NumPy from the moments before and after the shift: the second are measured with the shifted units."""
    before = weights(training)
    forget, retain = forgotten_moments(training, inputs=True), retained_moments(training, inputs=True)
    settle(training, 0.0, 1.5)
    shifted = weights(training)
    for path, (down, up, bias) in before.items():
        gate = gate_of(forget[path].inputs, retain[path].inputs).double().numpy()
        size = 1.5 * np.sqrt(np.diag(forget[path].units.double().numpy()))
        expected = down.double().numpy() + size[:, None] * gate[None, :-1]
        np.testing.assert_allclose(shifted[path][0].numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            shifted[path][2].numpy(), bias.double().numpy() + size * (gate[-1] - 0.5), rtol=1e-4, atol=1e-5
        )
        assert torch.equal(shifted[path][1], up)
    forget, retain = forgotten_moments(training, inputs=True), retained_moments(training, inputs=True)
    settle(training, 0.3)
    for path, (down, up, _) in shifted.items():
        own, quiet = forget[path].units.double().numpy(), retain[path].units.double().numpy()
        held = own + 1e-4 * np.trace(own) / 4 * np.eye(4)
        expected = up.double().numpy() @ held @ np.linalg.inv(held + 0.3 * quiet)
        np.testing.assert_allclose(weights(training)[path][1].numpy(), expected, rtol=1e-3, atol=1e-5)
        assert torch.equal(weights(training)[path][0], down)


def test_both_at_once_are_one_after_the_other(training: Training) -> None:
    before = weights(training)
    settle(training, 0.3, 1.5)
    once = weights(training)
    for path, layer in layers_of(training.trainable.network).items():
        layer.down.copy_(before[path][0])
        layer.up.copy_(before[path][1])
        assert layer.bias is not None
        layer.bias.copy_(before[path][2])
    settle(training, 0.0, 1.5)
    settle(training, 0.3)
    for path, parts in weights(training).items():
        for mine, other in zip(parts, once[path], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_of_many_retained_rows_some_are_measured(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = training.sets.retain
    monkeypatch.setattr(settle_, "ROWS", 3)
    found = retained_moments(training, inputs=True)
    monkeypatch.undo()
    training.sets = replace(training.sets, retain=[rows[0], rows[round((len(rows) - 1) / 2)], rows[-1]])
    for path, moments in retained_moments(training, inputs=True).items():
        torch.testing.assert_close(found[path].inputs, moments.inputs)


def test_what_the_shift_measured_on_retained_rows_is_what_a_gate_would_be_stored_from(training: Training) -> None:
    measured = settle(training, 0.3, 1.5)
    assert settle(training, 0.3, 0.0) == {}
    for path, anew in retained_moments(training, inputs=True).items():
        torch.testing.assert_close(measured[path].inputs, anew.inputs, rtol=1e-5, atol=1e-6)
    state = RunState(step=1)
    stored = {
        shift: finish(replaced(training, settle=0.0, shift=shift), state, "", 7.0, 0).statistics.moments[path].gate
        for shift in (0.0, 1e-9)
    }
    torch.testing.assert_close(stored[0.0], stored[1e-9], rtol=1e-4, atol=1e-6)


def replaced(training: Training, **changes: float) -> Training:
    """Give a run other settings, with all moments stored and no scaling."""
    training.settings = replace(training.settings, scale=1.0, statistics="full", **changes)  # type: ignore[arg-type]
    return training


def test_the_defaults_are_those_that_were_measured() -> None:
    settings = FitSettings()
    assert (settings.shift, settings.settle, settings.statistics, settings.least_steps) == (2.0, 10.0, "units", 40)
