"""Scaling a layer to its target, and giving a run up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import EulError
from eul_trainer.fit.run import fit
from eul_trainer.fit.scale import MOST, find_factor
from eul_trainer.model.load import load_model
from eul_trainer.records import Fields, Row, read_rows
from eul_trainer.settings import FitSettings, default_settings

SETTINGS = FitSettings(
    rank=4, learning_rate=0.02, target_low=8.0, target_high=9.0, steps=40, least_steps=0, batch_size=8, refusal="",
    shift=0.0,
    weights={"low": 12.0, "high": 14.0},
)  # fmt: skip
"""A low rate and a hinge above the band, so that this layer answers to scaling: its loss of 8.0 rises to 8.5 at 2.5."""


class Curve:
    """A loss as a function of the factor, which counts how often it was measured."""

    def __init__(self, loss: Callable[[float], float]) -> None:
        self.loss, self.factors = loss, list[float]()

    def __call__(self, factor: float) -> float:
        self.factors.append(factor)
        return self.loss(factor)


def test_a_straight_line_is_met_at_the_second_measurement() -> None:
    curve = Curve(lambda factor: 1 + 4 * factor)  # 5 nats as trained
    assert find_factor(curve, 1.0, 3.0, 4.0)[0] == pytest.approx(0.5)
    assert curve.factors == [1.0, pytest.approx(0.5)]
    assert find_factor(curve, 1.0, 7.0, 4.0)[0] == pytest.approx(1.5)


def test_what_is_near_enough_stays_as_it_is() -> None:
    curve = Curve(lambda factor: 3.049)
    assert find_factor(curve, 1.0, 3.0, 4.0)[0] == 1.0
    assert curve.factors == [1.0]
    assert find_factor(lambda factor: 1 + 2.051 * factor, 1.0, 3.0, 4.0)[0] != 1.0


def test_a_loss_out_of_reach_ends_at_the_limit() -> None:
    assert find_factor(lambda factor: 1 + 0.1 * factor, 1.0, 3.0, 4.0)[0] == 4.0
    curve = Curve(lambda factor: 100.0 + factor)
    assert find_factor(curve, 1.0, 3.0, 4.0)[0] == 0.25
    assert curve.factors[-1] == 0.25


def test_a_base_model_beyond_the_target_is_left_alone() -> None:
    curve = Curve(lambda factor: 5 + factor)
    assert find_factor(curve, 5.0, 5.0, 4.0)[0] == 1.0
    assert curve.factors == [1.0]


def test_a_loss_that_falls_at_first_is_followed_up() -> None:
    assert find_factor(lambda factor: 2 - 2 * factor + factor**2, 2.0, 5.0, 8.0)[0] == pytest.approx(3, abs=0.02)


@given(st.floats(0.05, 3), st.floats(1.5, 12), st.floats(0.3, 4), st.floats(1.1, 16), st.floats(0.2, 3))
def test_whatever_the_curve_the_target_is_met_or_the_limit_reached(
    before: float, middle: float, reach: float, limit: float, power: float
) -> None:
    """Rising curves of many shapes: within the limit the target is met in few measurements, or else it is nearer."""

    def loss(factor: float) -> float:
        return before + reach * factor**power

    curve = Curve(loss)
    factor, found = find_factor(curve, before, middle, limit)
    assert found == pytest.approx(loss(factor))
    assert len(curve.factors) <= MOST
    assert all(1 / limit <= tried <= limit for tried in curve.factors)
    assert abs(loss(factor) - middle) <= abs(loss(1.0) - middle)
    wanted = ((middle - before) / reach) ** (1 / power) if middle > before else math.nan
    if 1 / limit <= wanted <= limit:
        assert loss(factor) == pytest.approx(middle, abs=0.05)


@pytest.fixture
def rows(data: Path) -> tuple[list[Row], list[Row]]:
    return read_rows(data / "first.jsonl", Fields()), read_rows(data / "retain.jsonl", Fields())


Rows = tuple[list[Row], list[Row]]


def test_training_ends_past_the_lower_end_and_the_layer_is_scaled_to_the_middle(tiny_model: Path, rows: Rows) -> None:
    result = fit(load_model(str(tiny_model)), *rows, SETTINGS)
    plain = fit(load_model(str(tiny_model)), *rows, replace(SETTINGS, scale=1.0))
    assert result.curve == plain.curve
    probes = [losses["probe"] for losses in result.curve if "probe" in losses]
    assert [loss >= 8.0 for loss in probes] == [False] * (len(probes) - 1) + [True]
    assert result.after == pytest.approx(8.5, abs=0.05)
    assert result.reached
    assert plain.scale == 1
    for module, layer in plain.layers.items():
        assert torch.equal(result.layers[module].up, layer.up * result.scale)
        assert torch.equal(result.layers[module].down, layer.down)


def test_training_goes_on_at_its_target_to_the_least_steps(tiny_model: Path, rows: Rows) -> None:
    early = fit(load_model(str(tiny_model)), *rows, SETTINGS)
    assert early.steps < 35
    settings = replace(SETTINGS, least_steps=35)
    result = fit(load_model(str(tiny_model)), *rows, settings)
    probes = {step: losses["probe"] for step, losses in enumerate(result.curve, 1) if "probe" in losses}
    assert list(probes) == [8, 16, 24, 32, 35]
    assert probes[32] >= 8.0
    assert result.steps == 35
    assert result.after == pytest.approx(8.5, abs=0.05)
    short = fit(load_model(str(tiny_model)), *rows, replace(settings, steps=early.steps))
    assert (len(short.curve), short.reached) == (early.steps, True)


def test_a_run_out_of_steps_is_scaled_up(tiny_model: Path, rows: Rows) -> None:
    """Twelve steps do not reach the band; a factor above 1 does."""
    settings = replace(SETTINGS, steps=9, settle=0.0)
    plain = fit(load_model(str(tiny_model)), *rows, replace(settings, scale=1.0))
    assert plain.after < 8.0
    result = fit(load_model(str(tiny_model)), *rows, settings)
    assert result.scale > 1
    assert plain.after < result.after <= 8.55


def test_a_run_is_given_up_when_unrelated_text_suffers(tiny_model: Path, rows: Rows) -> None:
    forget, retain = rows
    settings = replace(default_settings("ascent"), rank=4, learning_rate=0.2, steps=60, target_low=90, target_high=91)
    line = (
        r"given up after step \d+: the loss on {} rose from \d.* nats, --unrelated-limit allows 1; nothing was written"
    )
    with pytest.raises(EulError, match=line.format("rows to keep")):
        fit(load_model(str(tiny_model)), forget, retain, settings)
    with pytest.raises(EulError, match=line.format("unrelated rows")):
        fit(load_model(str(tiny_model)), forget, retain[:10], settings, unrelated=retain[10:])


def test_unrelated_text_is_measured_at_each_probe(tiny_model: Path, rows: Rows) -> None:
    forget, retain = rows
    settings = replace(SETTINGS, steps=13, target_low=90, target_high=91)
    curve = fit(load_model(str(tiny_model)), forget, retain[:10], settings, unrelated=retain[10:]).curve
    assert [step for step, losses in enumerate(curve, 1) if "unrelated" in losses] == [12, 13]
    assert [step for step, losses in enumerate(curve, 1) if "probe" in losses] == [12, 13]
    silent = fit(load_model(str(tiny_model)), forget, retain, replace(settings, unrelated_limit=0.0)).curve
    assert not any("unrelated" in losses for losses in silent)
