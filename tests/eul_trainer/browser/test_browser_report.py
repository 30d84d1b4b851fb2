"""The report in a real browser: what it asks for, what it says, how it is reached by keyboard, and how it looks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Chromium

from .conftest import ROOT, Report

PHONE, DESKTOP, PAPER = 360, 1280, 718
"""Widths in CSS pixels; paper is A4 with margins of 10 mm."""


@pytest.fixture
def page(browser: Chromium, report: Report) -> Chromium:
    """The report on a desktop."""
    browser.open((report.pages / "report.html").as_uri())
    browser.show(DESKTOP)
    return browser


def table(page: Chromium, label: str) -> list[list[str]]:
    """The cells of a table's body, by the name of its region."""
    found: list[list[str]] = page.evaluate(
        f"[...document.querySelectorAll('[aria-label={json.dumps(label)}] tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert found, label
    return found


def test_nothing_is_asked_of_any_host_and_nothing_is_complained_of(page: Chromium, report: Report) -> None:
    asked = [event["request"]["url"] for event in page.told("Network.requestWillBeSent")]
    assert asked == [(report.pages / "report.html").as_uri()]
    assert page.told("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    assert page.evaluate("document.title").startswith("What was forgotten, and what was kept: 0 of 2 bundles pass")


def test_a_request_to_another_host_would_be_seen(browser: Chromium, report: Report, tmp_path: Path) -> None:
    text = (report.pages / "report.html").read_text()
    (tmp_path / "bad.html").write_text(text.replace("</h1>", '</h1><img alt="" src="http://example.invalid/x.png">'))
    browser.open((tmp_path / "bad.html").as_uri())
    asked = [event["request"]["url"] for event in browser.told("Network.requestWillBeSent")]
    assert "http://example.invalid/x.png" in asked
    assert browser.told("Log.entryAdded")


def test_every_link_of_the_contents_leads_to_its_section(page: Chromium) -> None:
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => [a.getAttribute('href'), a.textContent])")
    assert len(links) == 11
    for href, title in links:
        page.evaluate("window.scrollTo(0, 0)")
        page.click(f'nav a[href="{href}"]')
        assert page.evaluate("location.hash") == href
        assert page.evaluate(f"document.querySelector('{href}').textContent") == title
        top, whole, end = page.evaluate(
            f"[document.querySelector('{href}').getBoundingClientRect().top, innerHeight,"
            "Math.ceil(scrollY + innerHeight) >= document.documentElement.scrollHeight]"
        )
        assert -1 <= top < whole, href
        assert top < 60 or end, href


def test_the_numbers_are_those_of_the_evaluation(page: Chromium, report: Report) -> None:
    metrics = report.metrics
    expected = []
    for part in metrics["sets"]:
        for group in part["groups"].values():
            for numbers in group["systems"].values():
                expected.append([f"{numbers['loss']:.3f}", f"{numbers['accuracy']:.3f}", f"{numbers['rouge_l']:.3f}"])
    found = table(page, "Means by set and group")
    assert [[row[4], row[6], row[7]] for row in found] == expected
    areas = [
        [system, name, f"{area['value']:.3f}", f"{area['low']:.3f}", f"{area['high']:.3f}"]
        for system, sets in metrics["comparisons"].items()
        for name, measures in sets.items()
        for measure, area in measures.items()
        if measure.startswith("membership_")
    ]
    assert [[*row[:2], *row[3:6]] for row in table(page, "Membership inference, numbers")] == areas
    words = page.evaluate("document.body.innerText")
    for verdict in metrics["verdicts"].values():
        assert verdict["sentence"] in words
    for digest in (metrics["base"], metrics["policy"], metrics["code"], *filter(None, metrics["systems"].values())):
        assert digest in words
    assert all(gap["why"] in words for gap in metrics["gaps"])


def test_trade_off_attacks_and_sequence_have_their_numbers(page: Chromium, report: Report) -> None:
    loss = {
        part["name"]: {name: one["loss"] for name, one in part["systems"].items()} for part in report.metrics["sets"]
    }
    assert table(page, "Forgotten against kept, numbers") == [
        [name, system, f"{loss[name][system] - loss[name]['base']:+.3f}",
         f"{loss['retain'][system] - loss['retain']['base']:+.4f}"]
        for name in ("first", "second") for system in loss[name]
    ]  # fmt: skip
    attacks = table(page, "Attacks")
    assert len(attacks) >= len(report.attacks)
    best = next(part for part in report.attacks if part["name"].startswith("best-of-2") and part["set"] == "second")
    (shown,) = [row for row in attacks if row[0] == best["name"] and row[1] == "second"]
    assert shown[5:9] == [f"{best['systems'][name]['rouge_l']:.3f}" for name in ("base", "a", "b", "twin")]
    for number, order in enumerate(report.sequence["orders"], 1):
        rows = table(page, f"Sequence 1, order {number}")
        assert [row[0] for row in rows] == ["before", "fuse", "fuse", "revoke", "revoke"]
        for row, step in zip(rows[1:], order["steps"], strict=True):
            assert row[1:] == [step["request"], "1.2", *(f"{part['loss']:.3f}" for part in step["sets"].values())]


def test_answers_stand_side_by_side_and_on_a_phone_below_one_another(page: Chromium, report: Report) -> None:
    row = report.metrics["rows"][0]
    code = "[...document.querySelector('.asked').querySelectorAll('dd')].map(dd => [dd.textContent, dd.offsetTop])"
    wide = page.evaluate(code)
    assert [text for text, _ in wide] == [found["answer"] for found in row["systems"].values()]
    assert len({top for _, top in wide}) < len(wide)
    page.show(PHONE)
    narrow = page.evaluate(code)
    assert len({top for _, top in narrow}) == len(narrow)


def test_the_keyboard_reaches_and_moves_every_region(page: Chromium) -> None:
    page.show(PHONE)
    wanted = page.evaluate("[...document.querySelectorAll('.wide')].map(part => part.ariaLabel)")
    assert len(set(wanted)) == len(wanted)
    reached: list[str] = []
    for _ in range(len(wanted) + 30):
        page.press("Tab", 9)
        name = page.evaluate("document.activeElement.ariaLabel || 'link: ' + document.activeElement.textContent.trim()")
        reached.append(name)
        if name == wanted[-1]:
            break
    assert reached[0] == "link: Skip to the report"
    assert [name for name in reached if name in wanted] == wanted
    page.evaluate("document.querySelector('[aria-label=\"Means by set and group\"]').focus()")
    page.press("ArrowRight", 39)
    assert page.becomes("document.activeElement.scrollLeft > 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Chromium, axe: str, scheme: str) -> None:
    page.show(DESKTOP, scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)"
    )
    page.evaluate(axe + "; true")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    told = [(rule["id"], node["html"][:200]) for rule in found["violations"] for node in rule["nodes"]]
    assert told == []
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    for width in (PHONE, DESKTOP):
        page.show(width, scheme=scheme)
        path = ROOT / "build" / f"report-{width}-{scheme}.png"
        path.parent.mkdir(exist_ok=True)
        page.picture(path)
        assert path.read_bytes()[16:20] == width.to_bytes(4)  # the width that a PNG file names


def test_axe_would_find_something(page: Chromium, axe: str) -> None:
    page.evaluate("document.querySelector('svg').removeAttribute('aria-label')")
    page.evaluate("document.querySelector('.verdict').style.color = '#ddd'")
    page.evaluate(axe + "; true")
    found: dict[str, Any] = page.evaluate("axe.run(document)")
    assert {"svg-img-alt", "color-contrast"} <= {rule["id"] for rule in found["violations"]}


CUT = """
[...document.querySelectorAll('body *')].filter(part => {
  const box = part.getBoundingClientRect();
  return !part.closest('.skip') && box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map(part => part.outerHTML.slice(0, 120))
"""
"""What lies beyond the page's edges."""


def test_nothing_is_cut_off_on_paper(page: Chromium) -> None:
    page.show(PAPER, media="print", scheme="dark")
    assert page.evaluate(CUT) == []
    assert (
        page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 32, 37)"
    )  # dark on white, whatever the screen
    assert not page.evaluate("document.querySelector('nav').checkVisibility()")
    last = "[...document.querySelectorAll('.asked dd')].at(-1).checkVisibility({contentVisibilityAuto: true})"
    assert page.becomes(last)  # what is folded on the screen
    page.show(DESKTOP)
    assert page.becomes(f"!{last}")
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert page.becomes(last)


def test_the_page_does_not_scroll_sideways_on_a_phone(page: Chromium) -> None:
    page.show(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE


def test_plots_are_there_in_both_schemes(page: Chromium) -> None:
    """A colour of the page stands where the drawing has a stand-in, and no stand-in is left."""
    names: list[str] = page.evaluate("[...document.querySelectorAll('svg')].map(svg => svg.ariaLabel)")
    for beginning in (
        "Forgotten against kept", "Mean loss of the true answer", "Membership inference", "Attacks on first",
        "Attacks on second", "Loss while requests come and go, order 2 of 2",
    ):  # fmt: skip
        assert any(name.startswith(beginning) for name in names), beginning
    assert not re.search(r"#0102\w\w|#01010\d", page.evaluate("document.documentElement.outerHTML"))
    seen: Callable[[], str] = lambda: page.evaluate(  # noqa: E731
        "getComputedStyle(document.querySelector('#losses-patch_3 path')).fill"
    )
    light = seen()
    page.show(DESKTOP, scheme="dark")
    assert seen() != light
