"""Which rows a step sees, how fast it learns, and when training stops."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_trainer.fit.schedule import draw, rate, stream
from eul_trainer.fit.stop import MEASURED_ROWS, PROBE_ROWS, Target, probe_now, probe_rows
from eul_trainer.settings import FitSettings, default_settings, override


@given(st.integers(0, 5), st.integers(1, 30), st.integers(0, 200), st.integers(0, 40))
def test_a_stream_is_one_row_of_shuffled_passes(seed: int, count: int, first: int, size: int) -> None:
    whole = stream(seed, 1, count, 0, first + size)
    assert stream(seed, 1, count, first, size) == whole[first:]
    for start in range(0, len(whole) - count + 1, count):
        assert sorted(whole[start : start + count]) == list(range(count))


def test_mixed_batches_have_the_stated_shares() -> None:
    chosen = draw(FitSettings(), 3, 40, 100)
    assert (len(chosen.forget), len(chosen.retain), len(chosen.refusal)) == (6, 10, 4)
    assert draw(FitSettings(refusal=""), 3, 40, 100).refusal == ()
    assert draw(FitSettings(seed=1), 3, 40, 100) != chosen


def test_the_paper_alternates_whole_epochs_retain_first() -> None:
    settings = FitSettings(objective="paper", batch_size=4)
    steps = [draw(settings, step, 6, 10) for step in range(10)]  # 3 steps of 10 rows, then 2 of 6, and again
    kinds = ["retain" if chosen.retain else "forget" for chosen in steps]
    assert kinds == ["retain"] * 3 + ["forget"] * 2 + ["retain"] * 3 + ["forget"] * 2
    assert Counter(row for chosen in steps for row in chosen.retain) == dict.fromkeys(range(10), 2)
    assert Counter(row for chosen in steps for row in chosen.forget) == dict.fromkeys(range(6), 2)
    assert all(len(chosen.refusal) == 0 for chosen in steps)


def test_learning_rates() -> None:
    bounded = FitSettings(learning_rate=0.3)
    assert [round(rate(bounded, step), 6) for step in range(4)] == [0.1, 0.2, 0.3, 0.3]
    paper = FitSettings(objective="paper", learning_rate=1.0, steps=100)  # warm-up of 6 steps, then linear to 0
    assert rate(paper, 0) == pytest.approx(1 / 6)
    assert rate(paper, 5) == pytest.approx(1)
    assert rate(paper, 53) == pytest.approx(47 / 94)


def test_the_target_has_two_sides() -> None:
    target = Target(low=4.5, high=5.5)
    assert [target.reached(loss) for loss in (4.4, 4.5, 5.5, 5.6)] == [False, True, True, False]
    assert target.middle == 5.0
    assert [target.passed(loss) for loss in (4.4, 4.5, 5.6, float("nan"), float("inf"))] == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert target.better(5.1, None)
    assert target.better(5.1, 4.5)
    assert not target.better(9.0, 4.0)
    assert not target.better(float("nan"), 4.0)


def test_probes_are_spread_and_begin_late() -> None:
    target = Target(low=4.5, high=5.5)
    assert [step for step in range(20) if probe_now(step, [], target)] == [11, 15, 19]
    assert [step for step in range(20) if probe_now(step, [1.0, 3.1], target)] == [9, 11, 13, 15, 17, 19]
    assert [step for step in range(20) if probe_now(step, [3.1, 1.0], target)] == [11, 15, 19]
    assert [step for step in range(28) if probe_now(step, [1.0, 9.0], target, 21)] == [7, 15, 20, 21, 23, 25, 27]
    assert [step for step in range(20) if probe_now(step, [], target, 8)] == [7, 11, 15, 19]
    assert probe_rows(3) == [0, 1, 2]
    assert probe_rows(1) == [0]
    rows = probe_rows(100)
    assert (len(rows), rows[0], rows[-1]) == (PROBE_ROWS, 0, 99)
    assert len(probe_rows(100, MEASURED_ROWS)) == 64


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank", 0), ("rank", 5000), ("steps", 0), ("learning_rate", 0.0), ("learning_rate", float("nan")),
        ("batch_size", 1), ("target_low", -1.0), ("target_low", 6.0), ("target_high", float("nan")), ("seed", -1),
        ("init_seed", -1), ("objective", "other"), ("activation", "tanh"),
    ],
)  # fmt: skip
def test_settings_out_of_range_name_the_option(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"--.*{name.split('_')[0]}"):
        override(FitSettings(), {name: value})


def test_defaults_of_the_paper_are_the_printed_ones() -> None:
    settings = default_settings("paper")
    assert (settings.learning_rate, settings.refusal_rows) == (5e-5, 0)
    assert default_settings("bounded") == FitSettings()
