"""The mutation tool: which mutants it makes, and how it judges those that survive."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, loaded from its file as `python tests/mutation/mutate.py` does."""
    monkeypatch.syspath_prepend(str(HERE))
    spec = importlib.util.spec_from_file_location("mutate", HERE / "mutate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutate", module)
    spec.loader.exec_module(module)
    return module


def test_constants_signs_reductions_indices_and_orders_change(mutate: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(
        '"""Talk."""\nimport math\n\n\ndef f(x: int = 1):\n    return -g(x[0], y).mean() if x < 2 else a + b\n'
    )
    names = [mutant.name for mutant in mutate.mutants_of(file)]
    assert "f: 1 -> 2" in names
    assert "f: x[0] -> x" in names
    assert "f: a + b -> a - b" in names
    assert "f: x < 2 -> x <= 2" in names
    assert "f: g(x[0], y) -> g(y, x[0])" in names
    assert "f: g(x[0], y).mean -> g(x[0], y).sum" in names
    assert "f: -g(x[0], y).mean() -> g(x[0], y).mean()" in names
    file.write_text("def f():\n    return zip(a, b, strict=True)\n")
    assert [mutant.name for mutant in mutate.mutants_of(file)] == [
        "f: zip(a, b, strict=True) -> zip(b, a, strict=True)"
    ]
    assert not any("Talk" in name or "math" in name for name in names)
    for mutant in mutate.mutants_of(file):
        compile(mutant.source, "mutant", "exec")


def test_what_changes_nothing_is_no_mutant(mutate: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text("x = max(y, 1e-30)\n")
    names = [mutant.name for mutant in mutate.mutants_of(file)]
    assert "module: 1e-30 -> 1.0" in names  # twice as much would be the same guard
    assert not any("max(1e-30, y)" in name for name in names)


def test_a_mutant_meets_the_tests_that_reach_its_line_the_quickest_first(mutate: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "edges.py"
    source.write_text("EDGE = 3\n\n\ndef f(x):\n    if x > EDGE:\n        return 1\n    return 0\n")
    (tmp_path / "test_edges.py").write_text(
        "import time\n\nimport pytest\nfrom edges import f\n\n\n"
        "@pytest.fixture(scope='module')\ndef high():\n    return f(9)\n\n\n"
        "def test_slow():\n    time.sleep(0.2)\n    assert f(1) == 0\n\n\ndef test_low():\n    assert f(2) == 0\n\n\n"
        "def test_high(high):\n    assert high == 1\n"
    )
    noted = tmp_path / "reach.json"
    line = ["-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path / "test_edges.py")]
    # In a process of its own, as the tool is run: a fork of this one may wait for ever for threads of servers.
    code = (
        "import sys, mutate; from pathlib import Path; case = mutate.Case('', mutate.Mutant('', 0, ''));"
        "sys.exit(mutate.run_tests(case, sys.argv[3:], (Path(sys.argv[1]), Path(sys.argv[2]))))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(noted), *line], check=True, cwd=HERE, timeout=120)
    reach = mutate.Reach.read(noted)
    assert [name.rpartition("::")[2] for name in reach.tests(source, 7)] == ["test_low", "test_slow"]
    assert len(reach.tests(source, 1)) == 3  # run at import: any test may notice
    assert len(reach.tests(source, 6)) == 3  # run by a shared fixture


def test_a_survivor_needs_a_reason_and_a_reason_a_survivor(mutate: ModuleType) -> None:
    cases = [mutate.Case("eul_trainer.objectives.x", mutate.Mutant(name, 7, "")) for name in ("f: a", "f: b", "f: c")]
    reasons = {"objectives.x f: a": "equal for all values", "objectives.x f: gone": "old"}
    found = mutate.judge(cases[:2], cases, reasons, complete=True)
    assert found == {
        "killed": 1,
        "explained": {"objectives.x f: a": "equal for all values"},
        "unexplained": ["objectives.x f: b (line 7)"],
        "stale_reasons": ["objectives.x f: gone"],
    }
    assert mutate.judge([], cases, reasons, complete=False)["stale_reasons"] == []
