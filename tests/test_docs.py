"""The documents hang together: every link leads somewhere, and every page can be found from docs/README.md."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from eul_serve.policy import load_policy

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])


def links(page: Path) -> list[str]:
    """Targets of a page's Markdown links, without those to the web or within the page."""
    prose = re.sub(r"^( {4}|```).*$", "", page.read_text(), flags=re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


def test_every_page_is_listed() -> None:
    indexes = [ROOT / "docs" / "README.md", ROOT / "docs" / "decisions" / "README.md"]
    listed = {(index.parent / target).resolve() for index in indexes for target in links(index)}
    pages = {page.resolve() for page in (ROOT / "docs").rglob("*.md") if page not in indexes}
    assert sorted(str(page.relative_to(ROOT)) for page in pages - listed) == []


def test_decisions_have_the_four_parts() -> None:
    parts = ["**Context.**", "**Decision.**", "**Cost.**", "**When to revisit.**"]
    for page in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        text = page.read_text()
        number = page.name[:4]
        assert text.startswith(f"# {number}: "), f"{page.name}: expected a title with its number"
        assert [part for part in parts if part not in text] == [], page.name


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "deploy" / "values").glob("*.yaml")), ROOT / "deploy/chart/values.yaml"],
    ids=lambda path: path.name,
)
def test_example_policies_are_valid(path: Path, tmp_path: Path) -> None:
    """What the server would say about the policy in the chart's values."""
    text = yaml.safe_load(path.read_text())["policy"]["text"]
    (tmp_path / "policy.toml").write_text(text)
    policy = load_policy(tmp_path / "policy.toml")
    assert set(policy.tenants) == set(tomllib.loads(text).get("tenants", {}))
