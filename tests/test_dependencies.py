"""docs/dependencies.md and pyproject.toml name the same packages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def required() -> set[str]:
    """Names of every package that pyproject.toml asks for, at build, at run time or for tests; not ourselves."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [document["build-system"]["requires"], document["project"]["dependencies"]]
    groups += document["project"]["optional-dependencies"].values()
    names = {re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for group in groups for requirement in group}
    return names - {document["project"]["name"]}


def explained() -> list[str]:
    """Names in the first column of the page's tables."""
    page = (ROOT / "docs" / "dependencies.md").read_text()
    return re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)


def test_each_dependency_is_explained_once() -> None:
    names = explained()
    assert len(names) == len(set(names))
    assert set(names) == required()


def test_each_row_says_all_four_things() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    cells = {row: [cell.strip() for cell in row.strip("|").split("|")] for row in rows}
    assert [row for row, content in cells.items() if len(content) != 4 or not all(content)] == []
