"""Policies and verdicts: both sides of every rule, gaps that are never passes, and files that are refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import InputError
from eul_trainer.evaluation.policy import DEFAULT, Policy, Rule, read_policy
from eul_trainer.evaluation.verdict import judge


def metrics(forget: float = 3.0, unseen: float | None = 2.8, kept: float = 1.01, **others: Any) -> dict[str, Any]:
    """One forget set, one retain set whose base loss is 1, and maybe an unseen set."""
    base = {"loss": 1.0, "gibberish": 0.0, "unchanged": None}
    sets = [
        {"name": "alice", "kind": "forget",
         "systems": {"base": base, "layer": {"loss": forget, "gibberish": others.get("gibberish", 0.0)}}},
        {"name": "retain", "kind": "retain",
         "systems": {"base": base, "layer": {"loss": kept, "gibberish": 0.0, "unchanged": others.get("same", 0.9)}}},
    ]  # fmt: skip
    if unseen is not None:
        of_base = {**base, "loss": unseen}
        sets.append({"name": "unseen", "kind": "unseen",
                     "systems": {"base": of_base, "layer": {"loss": others.get("unseen_after", unseen)}}})  # fmt: skip
    gap = {"system": "layer", "set": "alice", "measure": "membership_loss", "why": "0 unseen rows"}
    return {
        "sets": sets,
        "comparisons": {"layer": {"alice": others.get("comparisons", {})}, "twin": {"alice": others.get("twin", {})}},
        "gaps": [gap],
    }


@pytest.mark.parametrize(
    ("found", "sides"),
    [
        (metrics(), {}),
        (metrics(forget=1.0), {"forgotten": "below"}),  # as the untouched model
        (metrics(forget=9.0), {"forgotten": "above"}),  # as gradient ascent that ran too long
        (metrics(forget=9.0, unseen_after=9.0), {"forgotten": "above"}),  # and ruined all rows alike
        (metrics(kept=1.2), {"kept": "above"}),
        (metrics(kept=0.9), {"kept": "below"}),
        (metrics(same=0.1), {"kept answers": "below"}),
        (metrics(gibberish=0.5), {"speaks": "above"}),
        (metrics(unseen=None), {"forgotten": "gap"}),  # nothing to stand beside: not proven
        (metrics(comparisons={"membership_loss": {"value": 0.9}}), {"no member": "above"}),
        (metrics(comparisons={"membership_loss": {"value": 0.05}}), {"no member": "below"}),
        (
            metrics(comparisons={"membership_loss": {"value": 0.2}}, twin={"membership_loss": {"value": 0.5}}),
            {"no stranger than under the twin": "below"},
        ),
        (metrics(comparisons={"membership_loss": {"value": 0.2}}, twin={"membership_loss": {"value": 0.2}}), {}),
        (metrics(comparisons={"twin_distance": {"mean": 0.3}}), {"forgotten as the twin": "above"}),
        (metrics(forget=9.0, kept=1.5), {"forgotten": "above", "kept": "above"}),
    ],
)
def test_the_default_policy_fails_what_it_should_on_the_right_side(
    found: dict[str, Any], sides: dict[str, str]
) -> None:
    verdict = judge(found, "layer", read_policy())
    assert {finding.rule: finding.side for finding in verdict.findings if finding.failed} == sides
    assert verdict.passed == (not sides)
    assert len(verdict.findings) == len(read_policy().rules)


def test_a_verdict_says_what_was_found_and_what_is_allowed() -> None:
    verdict = judge(metrics(forget=9.0), "layer", read_policy())
    assert verdict.sentence == (
        "layer fails: alice: forgotten too far: it tells that something was there "
        "(loss beside unseen +6.200, at most +2)"
    )
    assert judge(metrics(), "layer", read_policy()).sentence == "layer passes all 8 findings"
    finding = next(part for part in verdict.findings if part.rule == "no member")
    assert (finding.side, finding.failed, finding.value) == ("gap", False, None)
    assert finding.words == "no value for membership_loss.value (0 unseen rows)"
    assert verdict.to_json()["findings"][0]["value"] == pytest.approx(6.2)


def tied(**requests: str | None) -> dict[str, Any]:
    """Metrics of a bundle that covers r-a and r-b, with a forgotten set for each of the requests given."""
    found = metrics()
    like = next(part for part in found["sets"] if part["kind"] == "forget")
    others = [part for part in found["sets"] if part["kind"] != "forget"]
    sets = [{**like, "name": name, "request": request} for name, request in requests.items()]
    return {**found, "sets": [*sets, *others], "requests": {"layer": ["r-a", "r-b"]}}


def test_rows_of_a_request_are_judged_under_the_bundles_that_cover_it() -> None:
    found = tied(first="r-a", second="r-b", other="r-c")
    found["sets"][2]["systems"] = {name: {**part, "loss": 0.0} for name, part in found["sets"][2]["systems"].items()}
    verdict = judge(found, "layer", read_policy())
    assert verdict.passed
    uncovered = [finding for finding in verdict.findings if finding.side == "uncovered"]
    assert {(finding.set, finding.failed) for finding in uncovered} == {("other", False)}
    assert len(uncovered) == sum(rule.on == "forget" for rule in read_policy().rules)
    assert f"passes all {len(verdict.findings) - len(uncovered)} findings" in verdict.sentence
    found["sets"][2]["request"] = "r-b"
    assert not judge(found, "layer", read_policy()).passed


def test_a_request_that_nobody_measured_fails() -> None:
    verdict = judge(tied(first="r-a"), "layer", read_policy())
    (finding,) = [finding for finding in verdict.findings if finding.failed]
    assert (finding.rule, finding.set, finding.side) == ("measured", "r-b", "gap")
    assert finding.words == "no row of this request was measured; give --forget r-b=FILE"
    assert judge(tied(first="r-a", any=None), "layer", read_policy()).passed  # rows of no request stand for all
    assert "r-b" not in [finding.set for finding in judge(tied(first="r-a"), "base", read_policy()).findings]


def test_ends_pass_and_a_kind_without_a_set_is_a_gap() -> None:
    def sided(low: float, high: float, **given: Any) -> Policy:
        return Policy(rules=(Rule(name="r", on="forget", measure="loss", low=low, high=high, **given),), digest="d")

    assert judge(metrics(forget=3.0), "layer", sided(3.0, 3.0)).passed
    assert not judge(metrics(forget=3.0), "layer", sided(3.1, 4.0)).passed
    assert judge(metrics(forget=3.0), "layer", sided(2.0, 2.0, beside="base")).passed
    assert not judge(metrics(forget=3.0), "layer", sided(0.0, 9.0, beside="twin")).passed
    alone = {"sets": [], "comparisons": {}, "gaps": []}
    found = judge(alone, "layer", sided(0.0, 9.0)).findings[0]
    assert (found.set, found.side, found.failed) == ("forget", "gap", True)
    assert judge(alone, "layer", sided(0.0, 9.0, needed=False)).passed


def test_a_comparison_that_is_one_number_can_be_asked_for() -> None:
    rule = Rule(name="utility", on="retain", measure="model_utility", low=0.5)
    found = metrics()
    found["comparisons"]["layer"]["retain"] = {"model_utility": 0.6}
    assert judge(found, "layer", Policy(rules=(rule,), digest="d")).passed


RULE = '[[rule]]\nname = "r"\non = "forget"\nmeasure = "loss"\nlow = 1.0\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version = 1\n[", "expected TOML"),
        ("version = 2\n" + RULE, "version: expected 1, found 2"),
        ("version = 1\n", "at least one"),
        ("version = 1\nother = 2\n" + RULE, "nothing else"),
        ("version = 1\n" + RULE + 'colour = "red"\n', "rule 1: unknown keys colour"),
        ("version = 1\n" + RULE.replace('name = "r"\n', ""), "rule 1: missing name"),
        (
            "version = 1\n" + RULE.replace('"forget"', '"all"'),
            "on: expected one of forget, retain, unseen, found 'all'",
        ),
        ("version = 1\n" + RULE + 'beside = "past"\n', "beside: expected one of base, twin, unseen, found 'past'"),
        ("version = 1\n" + RULE.replace('"loss"', "3"), "measure: expected text, found 3"),
        ("version = 1\n" + RULE.replace("1.0", '"1"'), "low: expected a number, found '1'"),
        ("version = 1\n" + RULE.replace("1.0", "nan"), "low: expected a number, found nan"),
        ("version = 1\n" + RULE.replace("1.0", "true"), "low: expected a number, found True"),
        ("version = 1\n" + RULE + "high = 0.5\n", "low at most high; found 1.0 and 0.5"),
        ("version = 1\n" + RULE.replace("low = 1.0\n", ""), "expected low, high or both"),
        ("version = 1\n" + RULE + "needed = 1\n", "needed: expected true or false, found 1"),
    ],
)
def test_a_policy_that_is_wrong_is_refused_in_words(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_policy(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"--policy {str(path)!r}")


def test_a_policy_is_known_by_its_files_digest(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(DEFAULT.read_bytes() + b"\n")
    assert read_policy(path).rules == read_policy().rules
    assert read_policy(path).digest != read_policy().digest
    with pytest.raises(InputError, match="cannot read"):
        read_policy(tmp_path / "none.toml")
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="expected TOML"):
        read_policy(path)
