"""The documents hang together: every link leads somewhere, and every page can be found from docs/README.md."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from eul_serve.cli.main import group as eul
from eul_serve.policy import load_policy
from eul_trainer.cli.main import group as eul_train

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])

# The reference pages show synopses, which nobody can type.
TASKS = [page for page in PAGES if page.parent.name != "reference"]


def links(page: Path) -> list[str]:
    """Targets of a page's Markdown links, without those to the web or within the page."""
    prose = re.sub(r"^( {4}|```).*$", "", page.read_text(), flags=re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


GROUPS: dict[str, click.Group] = {"eul": eul, "eul-train": eul_train}


def command_lines(page: Path) -> list[list[str]]:
    """The lines of `eul` and `eul-train` in a page's code, continued lines joined and placeholders filled in."""
    text = page.read_text().replace("\\\n", " ").replace("sha256:...", "sha256:" + "0" * 64)
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines() if re.match(r" {4}|eul", line)]
    found = [
        shlex.split(re.sub(r"(\s(\.\.\.|&|2?>\s*\S+))+$", "", line), comments=True)
        for line in lines
        if re.match(r"eul(-train)? [a-z]", line)
    ]
    return [words for words in found if words[1] in GROUPS[words[0]].list_commands(click.Context(GROUPS[words[0]]))]


@pytest.mark.parametrize("page", TASKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_command_lines_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flag in the documents exists, and takes what it is given."""
    if "export EUL_REGISTRY=" in page.read_text():
        monkeypatch.setenv("EUL_REGISTRY", "registry")
    for program, name, *arguments in command_lines(page):
        group = GROUPS[program]
        command = group.get_command(click.Context(group), name)
        assert command is not None
        with command.make_context(name, arguments):
            pass


def test_the_tutorial_is_among_what_is_checked() -> None:
    lines = command_lines(ROOT / "docs" / "tutorial" / "first-forgetting.md")
    assert {"fit", "fuse", "eval", "publish", "serve", "generate", "rollback"} <= {line[1] for line in lines}


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
        assert re.match(rf"# {number}:? ", text), f"{page.name}: expected a title with its number"
        assert [part for part in parts if part not in text] == [], page.name


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "deploy" / "values").glob("*.yaml")), ROOT / "deploy/chart/values.yaml"],
    ids=lambda path: path.name,
)
def test_example_policies_are_valid(path: Path, tmp_path: Path) -> None:
    """What the server would say about the policy in the chart's values."""
    told = yaml.safe_load(path.read_text())["policy"]
    text = told["text"]
    for name, written in {**told["keys"], "policy.toml": text}.items():
        (tmp_path / name).write_text(written)
    policy = load_policy(tmp_path / "policy.toml")
    assert set(policy.tenants) == set(tomllib.loads(text).get("tenants", {}))
