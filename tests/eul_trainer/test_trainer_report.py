"""The pages of an evaluation: everything measured is on them, nothing in the data can break them, and no row is in the
Markdown."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import InputError
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
    return {
        "base": "sha256:1",
        "systems": {"base": None, "layer": "sha256:2", "twin": None},
        "sets": [{"name": HOSTILE, "kind": "forget", "rows": 30, "systems": systems,
                  "groups": {"all": {"rows": 30, "systems": systems}}}],
        "comparisons": {"layer": {HOSTILE: {
            "membership_loss": member,
            "forget_quality": {"p": 1.5e-7, "statistic": 0.5, "side": "above", "rows": 30, "twin_rows": 31},
            "twin_distance": {"mean": 0.0625, "differences": {"a": 0.1, "b": 0.0}, "missing": []},
        }, "retain": {"model_utility": 0.5}}},
        "gaps": [{"system": "base", "set": "forget", "measure": "forget_quality", "why": HOSTILE}],
        "verdicts": {"layer": {"passed": False, "sentence": f"layer fails: {HOSTILE}", "findings": [finding]}},
        "policy": "sha256:3",
        "code": "sha256:4",
        "rows": [{"set": HOSTILE, "kind": "forget", "group": "all", "prompt": f"{HOSTILE} {number}",
                  "completion": "a secret", "systems": dict.fromkeys(systems, result)} for number in range(30)],
    }  # fmt: skip


ATTACKS = [
    {"kind": "prompts", "name": "prefix-2", "budget": 2, "set": "alice", "rows": 9,
     "systems": {"base": {"rouge_l": 0.9, "loss": 1.0}, "layer": {"rouge_l": 0.3, "loss": 3.0},
                 "twin": {"rouge_l": 0.1, "loss": 3.0}},
     "recovered": {"base": {"rouge_l": 1.0}, "layer": {"rouge_l": 0.25}, "twin": {"rouge_l": 0.0}}},
]  # fmt: skip


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_and_nothing_in_the_data_breaks_it() -> None:
    text = render_report(metrics(), ATTACKS)["report.html"]
    body = text[: text.index("<svg")] + text[text.index("</svg>") + len("</svg>") :]
    page = Page(body)
    assert page.open == []
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert not {"src", "href"} & {name for _, attributes in page.tags for name in attributes}
    words = re.sub(r"\s+", " ", " ".join(page.words))
    for expected in (
        HOSTILE, "Verdict: layer does not pass", "too high, fails", "3.250", "+2.250", "75 %", "0.0123",
        "0.250, 95 % from 0.100 to 0.500 (6 forgotten, 12 unseen rows); PrivLeak +200",
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


def test_what_was_not_measured_has_no_section() -> None:
    found = {**metrics(), "comparisons": {}, "gaps": [], "verdicts": {}}
    for text in render_report(found).values():
        for head in ("Verdict", "brought back", "Beside a twin", "could not be measured"):
            assert head not in text


def test_report_makes_the_pages_again(tmp_path: Path, trainer: RunTrainer) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(metrics()))
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "attack.json").write_text(json.dumps({"systems": {}, "code": "c", "attacks": ATTACKS}))
    trainer(
        "report", "--evaluation", tmp_path / "report", "--attack", tmp_path / "prompts", "--out", tmp_path / "pages"
    )
    expected = render_report(metrics(), ATTACKS)
    assert {path.name: path.read_text() for path in (tmp_path / "pages").iterdir()} == expected


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"systems": {}, "code": "c"}', "\x00"])
def test_files_that_are_none_of_ours_are_refused(text: str, tmp_path: Path) -> None:
    for name in ("metrics.json", "attack.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="evaluate again"):
            read_written(tmp_path / name)
    with pytest.raises(InputError, match="cannot read"):
        read_written(tmp_path / "none.json")
