"""The pages of an evaluation: everything measured is on them, nothing in the data can break them, and no row is in the
Markdown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import InputError
from eul_trainer.cli.main import run
from eul_trainer.evaluation.report import render_report
from eul_trainer.evaluation.written import read_written

from .conftest import RunTrainer

HOSTILE = 'Who is "<script>alert(1)</script>" | {{ 7 * 7 }}?'


def means(loss: float, changed: bool) -> dict[str, Any]:
    return {
        "loss": loss, "probability": 0.1, "accuracy": 0.2, "extraction_strength": 0.3, "rouge_l": 0.4,
        "rouge_l_f1": 0.4, "gibberish": 0.05, "divergence": 0.0123 if changed else None,
        "unchanged": 0.75 if changed else None,
        "truth_ratio": None,
    }  # fmt: skip


def metrics() -> dict[str, Any]:
    systems = {"base": means(1.0, False), "layer": means(3.25, True), "twin": means(3.5, False)}
    result = {"answer": HOSTILE, "gibberish": False}
    finding = {"rule": "forgotten", "set": HOSTILE, "value": 9.0, "side": "above", "failed": True, "words": HOSTILE}
    member = {"value": 0.25, "low": 0.1, "high": 0.5, "members": 6, "others": 12, "privleak": 200.0}
    kept = {name: means(2.0 + 0.125 * number, number == 1) for number, name in enumerate(systems)}
    passed = {"rule": "kept", "set": "retain", "value": 0.0, "side": "passed", "failed": False, "words": "no change"}
    uncovered = {**passed, "rule": "speaks", "set": "other", "side": "uncovered", "words": "r-b is not in it"}
    return {
        "base": "sha256:1",
        "systems": {"base": None, "layer": "sha256:2", "twin": None},
        "sets": [{"name": HOSTILE, "kind": "forget", "request": "r-a", "rows": 30, "systems": systems,
                  "groups": {"all": {"rows": 30, "systems": systems}}},
                 {"name": "retain", "kind": "retain", "request": None, "rows": 0, "systems": kept,
                  "groups": {"all": {"rows": 0, "systems": kept}}}],
        "comparisons": {"layer": {HOSTILE: {
            "membership_loss": member, "membership_classifier": {**member, "privleak": None, "accuracy": 0.625},
            "forget_quality": {"p": 1.5e-7, "statistic": 0.5, "side": "above", "rows": 30, "twin_rows": 31},
            "twin_distance": {"mean": 0.0625, "differences": {"a": 0.1, "b": 0.0}, "missing": []},
        }, "retain": {"model_utility": 0.5}}},
        "gaps": [{"system": "base", "set": "forget", "measure": "forget_quality", "why": HOSTILE}],
        "verdicts": {"layer": {"passed": False, "sentence": f"layer fails: {HOSTILE}",
                               "findings": [finding, passed, uncovered]}},
        "policy": "sha256:3",
        "answered": {"base": "transformers", "layer": "server"},
        "served_as_measured": {"layer": {"rows": 8, "same": 0.875}},
        "code": "sha256:4",
        "versions": {"python": "3.11.7"},
        "rows": [{"set": HOSTILE, "kind": "forget", "group": "all", "prompt": f"{HOSTILE} {number}",
                  "completion": "a secret", "systems": dict.fromkeys(systems, result)} for number in range(30)],
    }  # fmt: skip


ATTACKS = [
    {"kind": "prompts", "name": "prefix-2", "budget": 2, "set": "alice", "rows": 9,
     "systems": {"base": {"rouge_l": 0.9, "loss": 1.0}, "layer": {"rouge_l": 0.3, "loss": 3.0},
                 "twin": {"rouge_l": 0.1, "loss": 3.0}},
     "recovered": {"base": {"rouge_l": 1.0}, "layer": {"rouge_l": 0.25}, "twin": {"rouge_l": 0.0}}},
]  # fmt: skip


def step(action: str, request: str, *losses: float) -> dict[str, Any]:
    kinds = {"alice": "forget", "bob": "forget", "retain": "retain"}
    sets = {name: {"kind": kind, "loss": loss} for (name, kind), loss in zip(kinds.items(), losses, strict=True)}
    return {"action": action, "request": request, "requests": [], "revision": "sha256:5", "seconds": 1.75, "sets": sets}


def sequence() -> dict[str, Any]:
    return {
        "base": "sha256:1",
        "before": {"alice": {"loss": 1.0}, "bob": {"loss": 1.5}, "retain": {"loss": 2.0}},
        "orders": [
            {"order": ["r-a", "r-b"], "steps": [
                step("fuse", "r-a", 4.125, 1.5, 2.0), step("fuse", "r-b", 4.25, 4.5, 2.0),
                step("revoke", "r-a", 1.0, 4.5, 2.0625),
            ]},
            {"order": ["r-b", "r-a"], "steps": [
                step("fuse", "r-b", 1.0, 4.5, 2.0), step("fuse", "r-a", 4.0, 4.5, 2.0),
                step("revoke", "r-b", 4.0, 1.5, 2.0),
            ]},
        ],
        "code": "sha256:4",
        "versions": {},
    }  # fmt: skip


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_and_nothing_in_the_data_breaks_it() -> None:
    text = render_report(metrics(), ATTACKS, [sequence()])["report.html"]
    assert text.count("<svg") == 6  # trade-off, losses, membership, one attack on alice, two orders
    page = Page(re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))
    assert page.open == []
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert "src" not in {name for _, attributes in page.tags for name in attributes}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [attributes["href"] or "" for _, attributes in page.tags if "href" in attributes]
    assert len(set(ids)) == len(ids)
    assert {"#main", "#trade", "#attacks", "#sequences", "#gaps", "#limits"} <= set(links)
    assert {link.removeprefix("#") for link in links} <= set(ids)
    words = re.sub(r"\s+", " ", " ".join(page.words))
    for expected in (
        HOSTILE, "Verdict: layer does not pass", "too high, fails", "3.250", "+2.250", "75 %", "0.0123",
        "loss 0.250 0.100 0.500 6 12 +200", "classifier 0.250 0.100 0.500 6 12 0.625", "(forget, request r-a)",
        "not asked of this bundle", "layer fails “forgotten” on", "layer +2.250 +0.1250", "10 more rows of",
        "Sequence 1, order 2: r-b, r-a", "fuse r-b 1.8 4.250 4.500 2.000", "alice 1.000 4.000 to 4.250 1.000 to 4.000",
        "version of python 3.11.7",
        "p 1.5e-07, statistic 0.500, above the twin (30 and 31 rows)", "0.062 in the mean of 2 measures", "0.500",
        "prefix-2", "layer 0.25", "12 of 30 rows", "does not erase", "sha256:4",
    ):  # fmt: skip
        assert expected in words, expected
    # What a screen reader needs: one main part, a caption for every table, a scope for every head.
    assert tags.count("main") == tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")
    assert ("html", {"lang": "en"}) in page.tags


def test_the_markdown_has_the_numbers_and_no_row() -> None:
    text = render_report(metrics(), ATTACKS)["report.md"]
    assert "a secret" not in text
    assert "| forgotten |" in text
    assert '<script>alert(1)</script>" \\|' in text  # as it is, but for what would end a cell
    assert "&lt;" not in text
    assert "| prefix-2 | alice | 2 | 9 | rouge_l | 0.900 | 0.300 | 0.100 | layer 0.25 |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in tables if "prefix-2" in line or "brought back" in line}
    assert len(widths) == 1


def test_every_table_of_the_markdown_is_whole() -> None:
    text = render_report(metrics(), ATTACKS, [sequence()])["report.md"]
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 10  # findings, trade-off, losses, twin, membership, attacks, two orders, range, settings
    for table in tables:
        lines = table.splitlines()
        assert re.fullmatch(r"\|(---\|)+", lines[1])
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) == 1, table
        assert len(lines) > 2
    assert "| revoke | r-a | 1.8 | 1.000 | 4.500 | 2.062 |" in text
    assert "| retain | 2.000 | 2.000 to 2.000 | 2.000 to 2.062 |" in text


def test_the_json_has_what_the_pages_show_and_no_row() -> None:
    given = metrics()
    text = render_report(given, ATTACKS, [sequence()])["report.json"]
    found = json.loads(text)
    assert "a secret" not in text
    for name in ("base", "systems", "sets", "comparisons", "verdicts", "gaps", "policy", "code", "versions"):
        assert found[name] == given[name]
    assert found["attacks"] == ATTACKS
    assert found["sequences"] == [sequence()]
    assert found["trade_off"][1] == {"set": HOSTILE, "system": "layer", "forgotten": 2.25, "kept": 0.125}
    assert found["headline"].startswith("layer fails “forgotten” on Who is")
    assert any("does not erase" in limit for limit in found["limits"])


def test_what_was_not_measured_has_no_section() -> None:
    found = {**metrics(), "comparisons": {}, "gaps": [], "verdicts": {}}
    for text in render_report(found).values():
        for head in ("Verdict", "brought back", "Beside a twin", "could not be measured", "Membership", "come and go"):
            assert head not in text


def test_report_makes_the_pages_again(tmp_path: Path, trainer: RunTrainer) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(metrics()))
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "attack.json").write_text(json.dumps({"systems": {}, "code": "c", "attacks": ATTACKS}))
    (tmp_path / "sequence").mkdir()
    (tmp_path / "sequence" / "sequence.json").write_text(json.dumps(sequence()))
    trainer("report", "--evaluation", tmp_path / "report", "--attack", tmp_path / "prompts",
            "--sequence", tmp_path / "sequence", "--out", tmp_path / "pages")  # fmt: skip
    expected = render_report(metrics(), ATTACKS, [sequence()])
    assert {path.name: path.read_text() for path in (tmp_path / "pages").iterdir()} == expected


def test_what_does_not_belong_to_the_evaluation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(metrics()))
    (tmp_path / "sequence.json").write_text(json.dumps({**sequence(), "base": "sha256:9"}))
    other = {"systems": {"base": None, "layer": "sha256:8"}, "code": "c", "attacks": ATTACKS}
    (tmp_path / "attack.json").write_text(json.dumps(other))
    for given, words in (("--sequence", "base model sha256:9"), ("--attack", "layer is sha256:8 there and sha256:2")):
        line = ["report", "--evaluation", tmp_path, given, tmp_path, "--out", tmp_path / "pages"]
        assert run([str(word) for word in line]) == 2
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1
    assert not (tmp_path / "pages").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["orders"][0].pop("steps"),
        lambda found: found["orders"][0]["steps"][1]["sets"].pop("alice"),
        lambda found: found["before"].update(alice=None),
        lambda found: found.update(orders=7),
        lambda found: found["orders"][1]["steps"][0].update(seconds="long"),
    ],
)
def test_a_sequence_that_lacks_something_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    found = sequence()
    change(found)
    with pytest.raises(InputError, match=r"sequence.json: expected what `sequence` writes.*measure again"):
        render_report(metrics(), ATTACKS, [found])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"systems": {}, "code": "c"}', "\x00"])
def test_files_that_are_none_of_ours_are_refused(text: str, tmp_path: Path) -> None:
    for name in ("metrics.json", "attack.json", "sequence.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="evaluate again"):
            read_written(tmp_path / name)
    with pytest.raises(InputError, match="cannot read"):
        read_written(tmp_path / "none.json")


def test_pages_say_who_answered() -> None:
    pages = render_report(metrics())
    for name in ("report.html", "report.md"):
        assert "a server; of 8 answers 88% are those of transformers, word for word" in pages[name]
        assert "base, who answered" in pages[name]


def test_pages_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import eul_trainer.evaluation.report, eul_trainer.evaluation.verdict"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
