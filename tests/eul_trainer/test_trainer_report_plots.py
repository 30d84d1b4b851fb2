"""The plots of a report: what is drawn where, and that no name of a set or system can break a drawing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

from eul_trainer.evaluation.plots.attacks import attack_curves
from eul_trainer.evaluation.plots.drawing import Plot, styles
from eul_trainer.evaluation.plots.losses import loss_bars
from eul_trainer.evaluation.plots.membership import membership_intervals
from eul_trainer.evaluation.plots.sequence import order_plots
from eul_trainer.evaluation.plots.tradeoff import trade_off
from eul_trainer.evaluation.shown.attacks import curves
from eul_trainer.evaluation.shown.headline import headline
from eul_trainer.evaluation.shown.membership import intervals
from eul_trainer.evaluation.shown.sequence import Order, Step
from eul_trainer.evaluation.shown.trade import trades

NAMES = ["$x^2$ & <b>", "50% \\frac{", "人々", "a_b$c", 'quo"te', "a" * 300, "two\nlines"]


def summary(name: str, kind: str, **losses: float) -> dict[str, Any]:
    systems = {system: {"loss": loss} for system, loss in losses.items()}
    return {"name": name, "kind": kind, "rows": 3, "systems": systems, "groups": {"all": {"systems": systems}}}


def texts(plot: Plot) -> list[str]:
    """What stands in a drawing, which must be one whole element of XML."""
    root = ElementTree.fromstring(plot.svg)  # our own
    assert root.get("role") == "img"
    assert (root.get("aria-label") or "").startswith(plot.title)
    return ["".join(part.itertext()) for part in root.iter() if part.tag.endswith("}text")]


def test_each_system_looks_different_and_everywhere_the_same() -> None:
    found = styles(["base", *"abcdefg", "twin"])
    assert list(found) == ["base", *"abcdefg", "twin"]
    assert len(set(found.values())) == 9
    assert (found["base"].marker, found["twin"].marker) == ("o", "*")
    assert styles(["base", "a"])["a"] == found["a"]


def test_trades_are_changes_against_the_base_model() -> None:
    sets = [
        summary("alice", "forget", base=1.0, layer=4.5, twin=3.0),
        summary("bob", "forget", base=2.0, layer=2.25, twin=3.5),
        summary("near", "retain", base=1.0, layer=1.5, twin=1.0),
        summary("far", "retain", base=2.0, layer=2.0, twin=1.5),
        summary("unseen", "unseen", base=9.0, layer=9.0, twin=9.0),
    ]
    found = [(trade.set, trade.system, trade.forgotten, trade.kept) for trade in trades(sets)]
    assert found == [
        ("alice", "base", 0.0, 0.0), ("alice", "layer", 3.5, 0.25), ("alice", "twin", 2.0, -0.25),
        ("bob", "base", 0.0, 0.0), ("bob", "layer", 0.25, 0.25), ("bob", "twin", 1.5, -0.25),
    ]  # fmt: skip
    plot = trade_off(trades(sets))
    assert plot is not None
    words = texts(plot)
    assert {"alice", "bob", "base", "layer", "twin"} <= set(words)
    assert trades(sets[:2]) == []
    assert trade_off([]) is None


def test_names_break_no_drawing() -> None:
    sets = [summary(name, "forget", **{"base": 1.0, NAMES[0]: 2.0}) for name in NAMES]
    sets.append(summary("kept", "retain", **{"base": 1.0, NAMES[0]: 1.0}))
    plot = trade_off(trades(sets))
    assert plot is not None
    for found in (texts(plot), texts(loss_bars(sets))):
        assert NAMES[0] in found  # as it is, not as a formula
        assert "a" * 25 + "…" in found
        assert "a" * 300 not in found


def test_bars_stand_for_groups_and_name_the_request() -> None:
    kept = summary("kept", "retain", base=1.0, layer=1.5)
    sets = [
        {**summary("alice", "forget", base=1.0, layer=4.5), "request": "r-a"},
        {**kept, "groups": dict.fromkeys(("near", "far"), kept["groups"]["all"])},
    ]
    words = texts(loss_bars(sets))
    assert {"alice", "(forget, r-a)", "near", "far", "(retain)"} <= set(words)
    assert "kept" not in words


def test_plots_of_one_page_share_no_id_and_no_colour_of_their_own() -> None:
    sets = [summary("alice", "forget", base=1.0, layer=4.5), summary("kept", "retain", base=1.0, layer=1.5)]
    plots = [loss_bars(sets), trade_off(trades(sets))]
    ids = [name for plot in plots if plot for name in re.findall(r' id="([^"]+)"', plot.svg)]
    assert len(set(ids)) == len(ids)
    for plot in plots:
        assert plot is not None
        assert set(re.findall(r"#[0-9a-f]{6}", plot.svg)) == set()
        targets = re.findall(r'(?:url\(|href=")#([^)"]+)', plot.svg)
        assert targets
        assert set(targets) <= set(ids)
    assert loss_bars(sets) == loss_bars(sets)  # the same numbers, the same bytes


def test_intervals_are_read_with_what_they_have() -> None:
    area = {"value": 0.25, "low": 0.1, "high": 0.5, "members": 6, "others": 12, "privleak": -3.0}
    comparisons = {
        "layer": {"alice": {"membership_min_k": area, "twin_distance": {"mean": 1.0}}},
        "twin": {"alice": {"membership_classifier": {**area, "privleak": None, "accuracy": 0.5}}},
    }
    found = intervals(comparisons)
    assert [(one.system, one.attack, one.privleak, one.accuracy) for one in found] == [
        ("layer", "min k", -3.0, None), ("twin", "classifier", None, 0.5),
    ]  # fmt: skip
    plot = membership_intervals(found)
    assert plot is not None
    assert {"min k", "classifier", "layer", "twin", "alice"} <= set(texts(plot))
    assert "base" not in texts(plot)  # it has no interval here
    assert membership_intervals([]) is None


def attack(kind: str, name: str, budget: float, **measures: Sequence[float]) -> dict[str, Any]:
    systems = {system: {measure: values[place] for measure, values in measures.items()}
               for place, system in enumerate(("base", "layer"))}  # fmt: skip
    return {
        "kind": kind,
        "name": name,
        "budget": budget,
        "set": "alice",
        "rows": 3,
        "systems": systems,
        "recovered": {},
    }


def test_attacks_that_differ_in_their_budget_are_a_curve() -> None:
    found = curves([
        attack("prompts", "plain", 0, probability=(0.5, 0.1), rouge_l=(0.9, 0.2)),
        attack("prompts", "format-json", 0, probability=(0.5, 0.1), rouge_l=(0.8, 0.3)),
        attack("prompts", "prefix-4", 4, probability=(0.5, 0.1), rouge_l=(1.0, 0.4)),
        attack("prompts", "prefix-1", 1, probability=(0.5, 0.1), rouge_l=(0.9, 0.1)),
        attack("sampling", "best-of-1-at-1", 1, rouge_l=(0.5, 0.1)),
        attack("sampling", "best-of-20-at-1", 20, rouge_l=(0.7, 0.2)),
        attack("relearning", "known-5-steps-0", 0, loss=(1.0, 3.0), probability=(0.5, 0.1)),
        attack("relearning", "known-5-steps-5", 5, loss=(1.0, 3.0), probability=(0.6, 0.3)),
        attack("choosing", "choice", 3, chosen=(1.0, 0.5), chance=(0.25, 0.25)),
        attack("other", "silent", 3, loss=(1.0, 0.5)),
    ])  # fmt: skip
    assert [(curve.name, curve.measure, curve.budgets, curve.systems["layer"]) for curve in found] == [
        ("prompts: plain", "rouge_l", (0,), (0.2,)),
        ("prompts: format-json", "rouge_l", (0,), (0.3,)),
        ("prompts: prefix-N", "rouge_l", (0, 1, 4), (0.2, 0.1, 0.4)),
        ("sampling: best-of-N-at-1", "rouge_l", (1, 20), (0.1, 0.2)),
        ("relearning: known-5-steps-N", "probability", (0, 5), (0.1, 0.3)),
        ("choosing: choice", "chosen", (3,), (0.5,)),
    ]
    lines, points = attack_curves(found, ["base", "layer", "twin"])
    assert {"prompts: prefix-N", "words that are known", "answers drawn", "steps", "ROUGE-L"} <= set(texts(lines))
    assert {"choosing: choice (chosen)", "prompts: plain (ROUGE-L)"} <= set(texts(points))
    assert "twin" not in texts(lines)
    assert attack_curves([], ["base"]) == []


@pytest.mark.parametrize("steps", [2, 40])
def test_a_sequence_names_each_step(steps: int) -> None:
    made = tuple(
        Step(action="fuse" if number < steps // 2 else "revoke", request=f"r-{number}", seconds=1.0,
             losses={"alice": 4.0, "kept": 1.0 + number})
        for number in range(steps)
    )  # fmt: skip
    order = Order(requests=("r-0",), kinds={"alice": "forget", "kept": "retain"}, before={"alice": 1.0, "kept": 1.0},
                  steps=made)  # fmt: skip
    alone, both = order_plots([order]), order_plots([order, order])
    assert len(alone) == 1
    assert len(both) == 2
    words = texts(alone[0])
    assert [word for word in words if word.startswith(("fuse", "revoke"))] == [f"{s.action} {s.request}" for s in made]
    assert {"before", "alice (forget)", "kept (retain)"} <= set(words)
    assert "shaded" in both[0].text
    assert "shaded" not in alone[0].text
    assert len(both[1].svg) > len(alone[0].svg)  # the range over the orders


def verdict(*failed: tuple[str, str], passed: int = 0) -> dict[str, Any]:
    findings = [{"rule": rule, "set": name, "side": "above", "failed": True} for rule, name in failed]
    findings += [{"rule": "kept", "set": "retain", "side": "passed", "failed": False}] * passed
    findings.append({"rule": "forgotten", "set": "bob", "side": "uncovered", "failed": False})
    return {"passed": not failed, "findings": findings}


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({}, "No bundle was judged: these are numbers without a verdict"),
        ({"one": verdict(passed=3)}, "one passes all 3 findings"),
        ({"one": verdict(("speaks", "a"), ("speaks", "b"), ("kept", "retain"))},
         "one fails “speaks” on a and b, “kept” on retain"),
        ({"one": verdict(*(("speaks", str(number)) for number in range(9)))}, "one fails “speaks” on 9 sets"),
        ({"one": verdict(passed=2), "two": verdict(("speaks", "a"))},
         "1 of 2 bundles passes the policy: one passes all 2 findings; two fails “speaks” on a"),
        ({"one": verdict(passed=2), "two": verdict(passed=1)},
         "2 of 2 bundles pass the policy: one passes all 2 findings; two passes all 1 findings"),
    ],
)  # fmt: skip
def test_the_headline_is_one_sentence(verdicts: dict[str, Any], expected: str) -> None:
    assert headline(verdicts) == expected
