"""Rules about the code as a whole: which room may import which, that all of it imports, and how long a file may be."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import eul_serve
import eul_trainer

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (eul_serve, eul_trainer)
GENERATED = "eul_serve.v1."
MAX_LINES = 250
EMPTY_NAMES = {"utils", "util", "misc", "helpers", "helper", "common", "tools"}


def module_names() -> list[str]:
    """Names of all modules of both packages, without importing them."""
    found = [package.__name__ for package in PACKAGES]
    for package in PACKAGES:
        for root in package.__path__:
            for path in sorted(Path(root).rglob("*.py")):
                parts = path.relative_to(Path(root).parent).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                if name not in found and not name.startswith(GENERATED):
                    found.append(name)
    return found


def source_of(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    assert spec.origin is not None, name
    return Path(spec.origin)


def exported_names(source: Path) -> list[str] | None:
    """Return the literal `__all__` of a module, None where it has none."""
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return None


def test_rooms_import_only_what_they_may() -> None:
    command = [
        str(Path(sys.executable).parent / "lint-imports"),
        "--config",
        str(ROOT / "pyproject.toml"),
        "--no-cache",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_module_imports() -> None:
    # In a process of its own: a module must not need what another test imported before it.
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    names = [name for name in module_names() if not name.endswith("__main__")]
    if importlib.util.find_spec("vllm") is None:
        names = [name for name in names if not name.startswith("eul_serve.engine.")]
    result = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr


def test_every_folder_with_code_is_a_package() -> None:
    found = {
        name for package in PACKAGES for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    }
    wanted = {name for name in module_names() if "." in name}
    assert wanted <= found, f"not reached through __init__.py: {sorted(wanted - found)}"


def test_no_module_is_named_for_nothing() -> None:
    wrong = [name for name in module_names() if EMPTY_NAMES & set(name.split("."))]
    assert not wrong, f"name these for what is in them: {wrong}"


def test_files_are_short() -> None:
    lengths = {name: len(source_of(name).read_text().splitlines()) for name in module_names()}
    wrong = {name: length for name, length in lengths.items() if length > MAX_LINES}
    assert not wrong, f"longer than {MAX_LINES} lines, split them: {wrong}"


@pytest.mark.parametrize("room", [name for name in module_names() if source_of(name).name == "__init__.py"])
def test_public_names_agree_with_the_imports(room: str) -> None:
    names = exported_names(source_of(room))
    if names is None:
        return
    module = importlib.import_module(room)
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []
    public = {
        alias.asname or alias.name
        for node in ast.parse(source_of(room).read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    left_out = {name for name in public if not name.startswith("_")} - set(names)
    assert not left_out, f"{room} imports {sorted(left_out)} but does not export it"
