"""The mutation tool: which mutants it makes, and how it judges those that survive."""

from __future__ import annotations

import importlib.util
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
    assert not any("Talk" in name or "math" in name for name in names)
    for mutant in mutate.mutants_of(file):
        compile(mutant.source, "mutant", "exec")


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
