"""What is told where a package is missing, damaged, or ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eul_serve.failure import describe

CPU_OR_GPU = "'eul-serve[cpu]', or 'eul-serve[gpu]' on a machine with a GPU"
ABSENT = "no_such_package"


@pytest.mark.parametrize(
    ("name", "program", "extra"),
    [
        ("vllm", "eul", CPU_OR_GPU),
        ("torch", "eul", CPU_OR_GPU),
        ("prometheus_client", "eul", CPU_OR_GPU),
        ("grpc", "eul", "'eul-serve[client]'"),
        ("grpc_health.v1", "eul", "'eul-serve[client]'"),
        ("torch", "eul-train", "'eul-serve[train]'"),
        ("grpc", "eul-train", "'eul-serve[client]'"),
        (ABSENT, "eul", CPU_OR_GPU),
    ],
)
def test_a_missing_package_names_the_right_extra(
    name: str, program: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = name.partition(".")[0]
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    failure = describe(ModuleNotFoundError(f"No module named {name!r}", name=name), program)
    assert failure.message == f"this command needs the package {package!r}; pip install {extra}"
    assert failure.exit_status == 2


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'click.nothing'", name="click.nothing"),
        ImportError("cannot import name 'nothing' from 'click'", name="click"),
        ImportError("libgomp.so.1: cannot open shared object file", name="click"),
    ],
)
def test_a_damaged_package_is_not_called_missing(error: ImportError) -> None:
    failure = describe(error, "eul-train")
    assert failure.message.startswith(
        f"the installation of click is damaged, or of a version that does not fit: {error};"
    )
    assert failure.message.endswith("pip install --force-reinstall 'eul-serve[train]'")


@pytest.mark.parametrize("name", ["eul_serve.v1.nothing", "eul_trainer.nothing"])
def test_an_import_of_our_own_that_fails_is_a_bug(name: str) -> None:
    failure = describe(ImportError("No module", name=name), "eul")
    assert (failure.exit_status, failure.message[:23]) == (1, "unexpected ImportError:")


def test_what_a_library_says_of_another_is_told_with_the_extra() -> None:
    failure = describe(ImportError("gguf>=0.10.0 is needed"), "eul-train")
    assert failure.exit_status == 2
    assert failure.message == (
        "a package is missing or does not fit: gguf>=0.10.0 is needed; pip install 'eul-serve[train]'"
    )


def test_a_server_on_a_damaged_vllm_says_so(tmp_path: Path, tiny_model: Path) -> None:
    """A package of the right name with nothing in it, before the real one on the path."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("")
    (tmp_path / "policy.toml").write_text("")
    line = ["serve", "--model", str(tiny_model), "--registry", str(tmp_path / "registry"), "--json"]
    line += ["--policy", str(tmp_path / "policy.toml"), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    done = subprocess.run(
        [sys.executable, "-c", "from eul_serve.cli.main import main; main()", *line],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    error = json.loads(done.stdout)["error"]
    assert done.returncode == error["exit_status"] == 2
    assert "the installation of vllm is damaged" in error["message"]
    assert error["message"].endswith(CPU_OR_GPU)
