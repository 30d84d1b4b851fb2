"""The tools that compare other versions of vLLM: what they read, and how they judge."""

from __future__ import annotations

import importlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
RECORD = HERE.parents[1] / "docs" / "benchmarks" / "engine" / "vllm_lora_tests.json"

Tool = Callable[[str], ModuleType]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


FILES = {
    "__init__.py": "from .inner import Made, make as build",
    "inner.py": """
from package.base import Base
class Made(Base[int]):
    def go(self, first, *, second): self.kept = first
def make():
    from package.base import helper
    return helper()
ONE = Made()
""",
    "base.py": """
class Base:
    flag: bool
    def __init__(self, size): self.size = size
""",
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    for name, text in FILES.items():
        (tmp_path / "package" / name).write_text(text)
    return tmp_path


def test_names_are_found_across_imports_and_bases(tool: Tool, sources: Path) -> None:
    source = tool("tree").Source(sources)
    for target in (
        "package:Made.go",
        "package:build",
        "package.inner:ONE.go",
        "package:Made.size",
        "package:Made.flag",
    ):
        assert source.has(target), target
    for target in ("package:Made.gone", "package:gone", "gone:Made", "package:Base"):
        assert not source.has(target), target
    assert source.parameters("package:Made.go") == ("first", "second")
    assert source.parameters("package:Made") == ("size",)
    assert "helper" in source.names("package.inner:make")


def test_an_archive_gives_the_folders_asked_for_and_no_others(tool: Tool, sources: Path, tmp_path: Path) -> None:
    archive = tmp_path / "vllm-1.2.3.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(sources / "package", "vllm-1.2.3/vllm")
        file.add(sources / "package", "vllm-1.2.3/docs")
    sdist = tool("sdist")
    assert sdist.version_of(archive) == "1.2.3"
    for _ in range(2):  # the second time it is there
        root = sdist.unpack(archive, tmp_path / "work", ("vllm",))
    assert sorted(path.name for path in root.iterdir()) == ["vllm"]
    assert sdist.unpack(root, tmp_path / "elsewhere") == root


def test_a_test_that_only_the_plugin_fails_is_a_fault(tool: Tool) -> None:
    run = tool("run_vllm_lora_tests")

    def row(outcome: str, text: str = "") -> dict[str, str]:
        return {"outcome": outcome, "text": text}

    record = run.describe(
        "1.2.3",
        {
            "stock": {
                "a.py::x": row("passed"),
                "a.py::y": row("error", "OfflineModeIsEnabled"),
                "b.py::z": row("passed"),
            },
            "plugin": {"a.py::x": row("passed"), "a.py::y": row("error"), "b.py::z": row("failed")},
            "ours": {"a.py::x": row("failed")},
        },
        3,
    )
    assert record["faults"] == ["a.py::x", "b.py::z"]
    assert record["totals"]["stock"] == {"passed": 2, "error": 1}
    assert record["files"]["a.py"]["not_passed_for"] == {"needs a model or adapter of the hub": 1}


def test_no_test_of_vllm_fails_for_the_plugin_alone() -> None:
    record = json.loads(RECORD.read_text())
    assert (record["faults"], record["differ"]) == ([], {})
    assert record["totals"]["stock"] == record["totals"]["plugin"]
    assert record["totals"]["ours"] == {"passed": record["files"]["tests/lora/test_lora_manager.py"]["stock"]["passed"]}
