"""The Dockerfile: sources exist, the entrypoint is ours, nobody runs as root, nothing is built in the final stage."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from eul_serve.cli.health import command as health

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "serve.Dockerfile"

Instruction = tuple[str, str]


def parse(text: str) -> list[Instruction]:
    """Return (keyword, rest) of each instruction, comments dropped and continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    return parse(DOCKERFILE.read_text())


@pytest.fixture(scope="module")
def final(instructions: list[Instruction]) -> list[Instruction]:
    """Instructions of the last stage, which is the image."""
    start = max(index for index, (keyword, _) in enumerate(instructions) if keyword == "FROM")
    return instructions[start:]


def test_every_copied_path_exists_and_enters_the_build(instructions: list[Instruction]) -> None:
    copied = [rest.split()[:-1] for keyword, rest in instructions if keyword == "COPY" and "--from=" not in rest]
    paths = [path.rstrip("/") for group in copied for path in group]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    let_in = {
        line[1:]
        for line in (DOCKERFILE.parent / "serve.Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert let_in == set(paths)


def test_entrypoint_is_a_console_script(final: list[Instruction]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (entrypoint,) = (json.loads(rest) for keyword, rest in final if keyword == "ENTRYPOINT")
    assert entrypoint[0] in project["scripts"]
    assert entrypoint == ["eul", "serve"]
    (check,) = (rest for keyword, rest in final if keyword == "HEALTHCHECK")
    program, command, *arguments = json.loads(check.split("CMD ", 1)[1])
    assert (program, command) == ("eul", "health")
    with health.make_context("health", arguments) as context:
        assert context.params["live"]


def test_user_is_numeric_and_not_root(final: list[Instruction]) -> None:
    """Kubernetes can prove `runAsNonRoot` only of a number."""
    users = [rest for keyword, rest in final if keyword == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])


def test_final_stage_has_no_build_tools(final: list[Instruction]) -> None:
    text = "\n".join(rest for _, rest in final)
    assert not re.search(r"\b(gcc|g\+\+|make|build-essential|uv|pip|curl|git)\b", text)
    # Without a compiler, vLLM's compiled sampler functions would kill the engine at the first log-probability.
    assert "TORCHDYNAMO_DISABLE=1" in text


def test_base_can_be_pinned_by_digest(instructions: list[Instruction]) -> None:
    bases = {rest.split()[0] for keyword, rest in instructions if keyword == "FROM"}
    assert bases == {"${BASE}"}
    (default,) = (rest for keyword, rest in instructions if keyword == "ARG" and rest.startswith("BASE="))
    assert default.startswith("BASE=python:3.11-slim")


def test_same_torch_as_the_tested_environment(instructions: list[Instruction]) -> None:
    (torch,) = (rest.removeprefix("TORCH=") for keyword, rest in instructions if rest.startswith("TORCH="))
    assert f"torch={torch}\n" in (ROOT / ".ci" / "install").read_text()


@pytest.mark.tools
def test_the_wheel_builds_from_what_is_copied(instructions: list[Instruction], tmp_path: Path) -> None:
    """The build's context holds nothing else, so a missing licence or proto file shows here."""
    groups = [rest.split() for keyword, rest in instructions if keyword == "COPY" and "--from=" not in rest]
    for *sources, target in groups:
        for source in sources:
            place = tmp_path / "src" / (target if (ROOT / source).is_dir() else f"{target}/{Path(source).name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__", "*_pb2*"))
            else:
                shutil.copy(ROOT / source, place)
    command = [Path(sys.executable).parent / "uv", "build", "--quiet", "--wheel", "--python", sys.executable]
    subprocess.run([*command, "--out-dir", tmp_path, tmp_path / "src"], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"eul_serve/cli/serve.py", "eul_serve/v1/generation_service_pb2.py", "eul_serve/py.typed"} <= names


@pytest.mark.tools
def test_hadolint_finds_nothing(hadolint: Path) -> None:
    command = [hadolint, "--no-color", "--failure-threshold", "style", DOCKERFILE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
