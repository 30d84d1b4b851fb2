"""The catalogue of objectives: their weights as published, what they ask of the loop, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass

import pytest

from eul_serve.errors import InputError
from eul_trainer.objectives import NAMES
from eul_trainer.objectives.catalog import OBJECTIVES, make_weights
from eul_trainer.settings import FitSettings, default_settings

DEFAULTS = {
    "bounded": {"alpha": 2.0, "forget": 0.3, "cap": 3.0, "task": 1.0, "gamma": 0.2, "low": 4.0, "high": 7.0,
                "silence": 600.0, "refusal": 0.5},
    "paper": {"alpha": 0.8, "task": 1.0, "gamma": 0.2},
    "npo": {"beta": 0.1, "gamma": 1.0, "alpha": 1.0, "retain": "nll"},
    "simnpo": {"beta": 4.5, "margin": 0.0, "gamma": 0.125, "alpha": 1.0, "retain": "nll"},
    "graddiff": {"gamma": 1.0, "alpha": 1.0, "retain": "nll"},
    "ascent": {"gamma": 1.0},
    "dpo": {"beta": 0.1, "gamma": 1.0, "alpha": 1.0, "retain": "nll"},
    "rmu": {"steering": 6.5, "alpha": 1200.0, "depth": 7 / 32, "direction": 0.0},
    "undial": {"beta": 10.0, "gamma": 1.0, "alpha": 1.0, "retain": "nll"},
}  # fmt: skip
"""Weights as published; where from is said in each objective's file."""


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_frozen_and_start_as_published(name: str) -> None:
    kind = OBJECTIVES[name].weights
    assert is_dataclass(kind)
    assert asdict(kind()) == DEFAULTS[name]  # type: ignore[call-overload]  # a dataclass of any kind
    assert asdict(make_weights(default_settings(name))) == DEFAULTS[name]  # 4 and 5 + 2 for the hinge
    with pytest.raises(AttributeError):
        setattr(kind(), fields(kind)[0].name, 0.0)


UNSETTLED = {"settle": 0.0, "shift": 0.0, "least_steps": 0}
ASKS = {
    "bounded": ({"refusal"}, 0.99, {}),
    "paper": ({"printed", "masked"}, 0.999, {"learning_rate": 5e-5, "batch_size": 8, "steps": 400, "scale": 1.0,
                                             "unrelated_limit": 0.0, "refusal": "", **UNSETTLED}),
    "dpo": ({"refusal", "paired"}, 0.999, UNSETTLED),
    "rmu": ({"states"}, 0.999, {"refusal": "", **UNSETTLED}),
    "undial": ({"dense"}, 0.999, {"refusal": "", **UNSETTLED}),
}  # fmt: skip
"""What an objective asks of the loop, the second decay of AdamW, and the settings that it changes."""


@pytest.mark.parametrize("name", NAMES)
def test_the_catalog_says_what_each_objective_asks_for(name: str) -> None:
    spec = OBJECTIVES[name]
    flags = {item.name for item in fields(spec) if getattr(spec, item.name) is True}
    assert (flags, spec.beta2, spec.defaults) == ASKS.get(name, (set(), 0.999, {"refusal": "", **UNSETTLED}))


def test_the_catalog_has_every_name() -> None:
    assert tuple(OBJECTIVES) == NAMES


def test_the_hinge_follows_the_target() -> None:
    weights = make_weights(FitSettings(target_low=2.0, target_high=2.5))
    assert (weights.low, weights.high) == (2.0, 4.5)
    assert make_weights(FitSettings(weights={"low": 0.3})).low == 0.3


def test_weights_are_chosen_by_name() -> None:
    weights = make_weights(FitSettings(objective="npo", weights={"beta": 0.3}, retain_term="kl"))
    assert asdict(weights) == {**DEFAULTS["npo"], "beta": 0.3, "retain": "kl"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "npo", "weights": {"bet": 1.0}}, "--weight bet: objective 'npo' has no .* beta, gamma, alpha$"),
        ({"objective": "npo", "weights": {"retain": 1.0}}, "--weight retain: objective 'npo' has no such weight"),
        ({"objective": "npo", "weights": {"beta": 0.0}}, "--weight beta: expected a number above 0, found 0.0"),
        ({"objective": "simnpo", "weights": {"beta": -1.0}}, "--weight beta: expected a number above 0"),
        ({"objective": "dpo", "weights": {"beta": 0.0}}, "--weight beta: expected a number above 0"),
        ({"objective": "npo", "weights": {"beta": float("nan")}}, "--weight beta: expected a finite number"),
        ({"objective": "bounded", "retain_term": "kl"}, "--retain-term: objective 'bounded' has no choice"),
        ({"objective": "npo", "retain_term": "l2"}, "--retain-term: expected one of nll, kl"),
        ({"objective": "dpo", "refusal": ""}, "--refusal: expected a text, as 'dpo' needs one"),
    ],
)
def test_weights_that_cannot_be_are_refused(given: dict[str, object], message: str) -> None:
    make: Callable[..., FitSettings] = FitSettings
    with pytest.raises(InputError, match=message):
        make(**given)
