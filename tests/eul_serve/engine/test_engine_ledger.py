"""The ledger against the real vLLM: each name is renamed in turn, and its entry, and no other, is reported."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from eul_serve.engine.ledger import ADAPTERS, FRONT, LEDGER, HookPoint, find_moved, require
from eul_serve.engine.ledger.inside import ABSENT, find
from eul_serve.errors import EngineError

HERE = Path(__file__).parent
NEW = "renamed_upstream"


def facts() -> Iterator[Any]:
    """Every fact of every entry: its name, its parameters, the attributes, and the functions that must use it."""
    for point in LEDGER:
        yield pytest.param(point, "name", point.name, id=point.target)
        for kind, names in (("takes", point.takes), ("reads", point.reads), ("used_by", point.used_by)):
            for name in names:
                yield pytest.param(point, kind, name, id=f"{point.target}-{kind}-{name}")


@pytest.mark.parametrize(("point", "kind", "name"), list(facts()))
def test_a_renamed_hook_point_is_reported_and_no_other(
    point: HookPoint, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "name":
        hide(monkeypatch, point.target)
    elif kind == "takes":
        rename_parameter(monkeypatch, point.target, name)
    elif kind == "reads":
        hide(monkeypatch, f"{point.target}.{name}")
    else:
        rename_in_code(monkeypatch, find(name), point.name)
    assert [moved.point for moved in find_moved(LEDGER)] == [point]
    with pytest.raises(
        EngineError, match=r"vLLM .*: hook point .*: expected .* written for vLLM 0.26 to 0.33"
    ) as caught:
        require(LEDGER)
    assert point.target in str(caught.value)
    assert kind == "name" or name in str(caught.value)


def test_the_installed_vllm_has_all_of_it() -> None:
    assert find_moved(LEDGER) == ()
    require(LEDGER)


def hide(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Take away a name, wherever it comes from: a module, a class or its bases, an annotation, or code that sets it."""
    path, _, name = target.replace(":", ":.").rpartition(".")
    owner = find(path.replace(":.", ":")) if not path.endswith(":") else importlib.import_module(path[:-1])
    assert owner is not ABSENT
    if not isinstance(owner, type) and not inspect.ismodule(owner):
        if name in vars(owner):
            monkeypatch.delattr(owner, name)
        owner = type(owner)
    if isinstance(owner, enum.EnumType):  # members of one cannot be taken away
        stand_in = enum.Enum(owner.__name__, {one.name: one.value for one in owner if one.name != name})
        monkeypatch.setattr(sys.modules[path.partition(":")[0]], owner.__name__, stand_in)
        return
    for one in owner.__mro__ if isinstance(owner, type) else (owner,):
        if name in vars(one):
            monkeypatch.delattr(one, name)
        monkeypatch.delitem(vars(one).get("__annotations__", {}), name, raising=False)
        for member in list(vars(one).values()) if isinstance(owner, type) else ():
            if isinstance(member, FunctionType) and name in member.__code__.co_names:
                monkeypatch.setattr(member, "__code__", renamed(member.__code__, name))


def rename_parameter(monkeypatch: pytest.MonkeyPatch, target: str, name: str) -> None:
    found = find(target)
    if isinstance(found, type):
        signature = inspect.signature(found)
        others = [one for one in signature.parameters.values() if one.name != name]
        kind = type("Kind", (type(found),), {"__signature__": property(lambda _: signature.replace(parameters=others))})
        stand_in = kind(found.__name__, (found,), {})
        monkeypatch.setattr(sys.modules[target.partition(":")[0]], found.__name__, stand_in)
        return
    assert isinstance(found, FunctionType)
    code = found.__code__
    names = tuple(NEW if one == name else one for one in code.co_varnames)
    monkeypatch.setattr(found, "__code__", code.replace(co_varnames=names))


def rename_in_code(monkeypatch: pytest.MonkeyPatch, found: Any, name: str) -> None:
    function = inspect.unwrap(getattr(found, "__func__", found))
    monkeypatch.setattr(function, "__code__", renamed(function.__code__, name))


def renamed(code: CodeType, name: str) -> CodeType:
    def change(part: Any) -> Any:
        return renamed(part, name) if isinstance(part, CodeType) else NEW if part == name else part

    return code.replace(
        co_names=tuple(NEW if one == name else one for one in code.co_names),
        co_consts=tuple(change(part) for part in code.co_consts),
    )


def test_a_missing_class_is_one_report_and_a_missing_module_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.lora import layers

    monkeypatch.delattr(layers, "BaseLayerWithLoRA")
    assert [moved.point.target for moved in find_moved(LEDGER)] == ["vllm.lora.layers:BaseLayerWithLoRA"]
    monkeypatch.setitem(sys.modules, "vllm.lora.request", None)
    with pytest.raises(EngineError, match=r"\(and \d+ more\)"):
        require(LEDGER)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    environment.pop("EUL_PLUGIN", None)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


RENAME = """
import sys
from vllm.lora.model_manager import LRUCacheLoRAModelManager
del LRUCacheLoRAModelManager._pin_lora_in_cpu_cache
"""


FOUND = "vllm.lora.model_manager:LRUCacheLoRAModelManager._pin_lora_in_cpu_cache: expected this name, found none"


def test_vllm_s_own_start_ends_in_words(tiny_model: Path) -> None:
    """Whatever starts vLLM makes its arguments first, and those load the plugin."""
    code = "from vllm.engine.arg_utils import AsyncEngineArgs\nAsyncEngineArgs(model=sys.argv[1], enable_lora=True)\n"
    found = run(RENAME + code, str(tiny_model))
    assert found.returncode != 0
    last = found.stderr.strip().splitlines()[-1]
    assert FOUND in last
    assert last.endswith("0.26 to 0.33: install one of these, or set EUL_PLUGIN=0 to run vLLM without bundles")


def test_eul_serve_refuses_to_start_in_words(tiny_model: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[tenants.research]\nbase = true\nbundles = []\n")
    found = run(
        RENAME + "from eul_serve.cli.main import main\nsys.exit(main())\n",
        "serve", "--model", str(tiny_model), "--registry", str(tmp_path / "registry"), "--policy", str(policy),
        "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--cache", str(tmp_path / "cache"),
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (7, ""), found.stderr
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("eul: vLLM ")
    assert FOUND in last


@pytest.mark.parametrize("point", LEDGER, ids=lambda point: point.target)
def test_each_entry_names_a_test_that_there_is(point: HookPoint) -> None:
    file, _, name = point.test.partition("::")
    functions = {
        node.name
        for node in ast.parse((HERE / file).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in functions


def test_each_entry_stands_once_and_the_front_is_none_of_a_worker_s_concern() -> None:
    targets = [point.target for point in LEDGER]
    assert len(set(targets)) == len(targets)
    assert ADAPTERS + FRONT == LEDGER


def test_the_arguments_of_vllm_are_all_in_the_ledger() -> None:
    from eul_serve.engine.settings import EngineSettings
    from eul_serve.engine.start import vllm_arguments

    point = next(point for point in LEDGER if point.name == "AsyncEngineArgs")
    assert set(point.takes) == set(vllm_arguments(EngineSettings(model=Path("model"))))


@pytest.fixture
def compat(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(HERE.parents[1] / "compat"))
    return importlib.import_module


ROOT = HERE.parents[2]


def test_the_reference_is_made_from_the_ledger(compat: Callable[[str], Any]) -> None:
    """Where this fails: python tests/compat/page.py > docs/reference/vllm.md"""
    assert (ROOT / "docs" / "reference" / "vllm.md").read_text() == compat("page").render()


def test_since_is_what_the_sources_say() -> None:
    record = json.loads((ROOT / "docs" / "benchmarks" / "engine" / "vllm_versions.json").read_text())
    assert record["since"] == {point.target: f"{point.since}.0" for point in LEDGER}
    assert set(map(tuple, record["versions"].values())) == {()}


def test_the_installed_sources_say_the_same_as_the_installed_classes(compat: Callable[[str], Any]) -> None:
    import vllm

    installed = compat("tree").Source(Path(vllm.__file__).parents[1])
    examine = compat("source").examine
    assert [lack for point in LEDGER for lack in examine(installed, point)] == []
    stand_in = HookPoint(
        target="vllm.lora.layers:BaseLayerWithLoRA.set_lora", use="overridden", why="", how="", goes="", test="",
        takes=("index",), used_by=("vllm.lora.model_manager:LoRAModelManager.pin_adapter",),
    )  # fmt: skip
    assert len(examine(installed, stand_in)) == 2


def imported(path: Path) -> set[str]:
    """Names of modules that a file imports, by a statement or by their text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {str(one.value) for one in node.args if isinstance(one, ast.Constant)}
    return found


def test_vllm_is_imported_by_one_file() -> None:
    packages = (ROOT / "eul_serve", ROOT / "trainer" / "eul_trainer")
    found = {
        str(path.relative_to(ROOT)): {name for name in imported(path) if name.partition(".")[0] == "vllm"}
        for package in packages
        for path in package.rglob("*.py")
    }
    assert found.pop("eul_serve/engine/compat.py")
    assert found.pop("eul_serve/engine/ledger/check.py") == {"vllm"}  # for its version; the rest is in the data
    assert {path: names for path, names in found.items() if names} == {}


def test_everything_that_is_imported_stands_in_the_ledger() -> None:
    tree = ast.parse((ROOT / "eul_serve" / "engine" / "compat.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names = {f"{node.module}.{alias.name}" for node in imports for alias in node.names if "vllm" in str(node.module)}
    known = [f"{point.target.replace(':', '.')}." for point in LEDGER]
    assert [name for name in sorted(names) if not any(target.startswith(f"{name}.") for target in known)] == []
