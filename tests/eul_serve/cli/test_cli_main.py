"""The group itself: help, version, errors in one place, and a start that imports little."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from eul_serve import __version__
from eul_serve.cli.lazy import Entry, LazyGroup
from eul_serve.cli.main import ENTRIES, group
from eul_serve.cli.publish import UNSIGNED
from eul_serve.errors import CapacityError, EngineError
from eul_serve.format import Bundle

PlainBundle = Callable[..., Bundle]
EUL = [sys.executable, "-c", "from eul_serve.cli.main import main; main()"]
REGISTRY_COMMANDS = (
    *("publish", "list", "show", "verify", "diff", "promote", "rollback", "hold", "ban", "gc", "pull", "copy", "login"),
    *("log", "token"),
)


@pytest.fixture
def failing() -> Iterator[click.Group]:
    """A group with commands that fail in every way there is."""
    module = ModuleType("failing_command")
    sys.modules["failing_command"] = module

    @click.command()
    @click.argument("how")
    @click.option("--json", "as_json", is_flag=True)
    def command(how: str, as_json: bool) -> None:
        """Fail."""
        errors: dict[str, BaseException] = {
            "bug": ZeroDivisionError("two\nlines"),
            "capacity": CapacityError("no room"),
            "engine": EngineError("dead"),
            "interrupt": KeyboardInterrupt(),
            "package": ModuleNotFoundError("No module named 'grpc'", name="grpc"),
            "exit": SystemExit(9),
            "file": click.FileError("x", "gone"),
        }
        raise errors[how]

    module.command = command  # type: ignore[attr-defined]

    class Failing(LazyGroup):
        entries = {"fail": Entry("failing_command", "Fail.", "Tests")}  # noqa: RUF012 - as EulGroup's

    yield Failing("eul")
    del sys.modules["failing_command"]


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("bug", 1, "eul: unexpected ZeroDivisionError: two lines; this is a bug, EUL_DEBUG=1 shows where\n"),
        ("capacity", 6, "eul: no room\n"),
        ("engine", 7, "eul: dead\n"),
        ("interrupt", 130, "\neul: interrupted\n"),
        ("package", 2, "eul: this command needs the package 'grpc'; pip install 'eul-serve[client]'\n"),
        ("exit", 9, ""),
        ("file", 2, "eul: Could not open file 'x': gone\n"),
    ],
)
def test_every_error_ends_in_one_line_and_a_status(
    failing: click.Group, how: str, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)  # as where it is not installed
    result = CliRunner().invoke(failing, ["fail", how])
    assert (result.exit_code, result.stderr, result.stdout) == (status, message, "")
    if message:
        as_json = CliRunner().invoke(failing, ["fail", how, "--json"])
        error = json.loads(as_json.stdout)["error"]
        assert error == {"exit_status": status, "kind": error["kind"], "message": message.strip()[len("eul: ") :]}
        assert as_json.stderr.strip() == ""


def test_a_traceback_is_shown_only_when_asked_for(failing: click.Group) -> None:
    result = CliRunner(env={"EUL_DEBUG": "1"}).invoke(failing, ["fail", "bug"])
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("shows where\n")


def test_help_lists_every_command_and_teaches_by_example() -> None:
    page = CliRunner().invoke(group, ["--help"])
    assert page.exit_code == 0
    for name, entry in ENTRIES.items():
        assert name in page.stdout
        assert entry.summary.split()[0] in page.stdout
    assert "eul publish build/layer --name poems --alias stable" in page.stdout


@pytest.mark.parametrize("name", REGISTRY_COMMANDS)
def test_every_registry_command_has_examples_and_json(name: str) -> None:
    page = CliRunner().invoke(group, [name, "--help"])
    assert page.exit_code == 0
    assert f"    eul {name}" in page.stdout
    assert "--json" in page.stdout


def test_no_word_at_all_is_a_question_for_help() -> None:
    alone, asked = (CliRunner().invoke(group, words) for words in ([], ["--help"]))
    assert (alone.exit_code, alone.stdout, alone.stderr) == (0, asked.stdout, "")


def test_version_is_the_packages() -> None:
    result = CliRunner().invoke(group, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"eul {__version__}\n")


def test_registry_commands_import_neither_torch_nor_grpc_nor_vllm(tmp_path: Path, plain_bundle: PlainBundle) -> None:
    place = str(tmp_path / "registry")
    bundle = str(plain_bundle().path)
    script = f"""
import sys
from eul_serve.cli.main import group
for words in (["--help"], ["publish", {bundle!r}, "--name", "poems", "--alias", "stable"], ["list"], ["show", "poems"],
              ["verify", "poems"], ["promote", "poems:stable", "next"], ["diff", "poems", "poems:next"],
              ["hold", "poems", "--reason", "x"], ["gc"], ["pull", "poems", {place!r} + "-pulled"],
              ["copy", "poems", "--to", {place!r} + "-copied"], ["log", "--check"], ["token"]):
    needs = ["--registry", {place!r}] if words[0] not in ("--help", "token") else []
    try:
        group.main([*words, *needs], prog_name="eul")
    except SystemExit as leaving:
        assert leaving.code == 0, words
heavy = sorted({{"torch", "grpc", "vllm", "transformers", "safetensors", "peft"}} & set(sys.modules))
assert heavy == [], heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_installed_command_prints_and_exits_as_promised(tmp_path: Path, plain_bundle: PlainBundle) -> None:
    bundle, place = plain_bundle(), str(tmp_path / "registry")
    words = ["publish", str(bundle.path), "--registry", place, "--name", "poems", "--alias", "stable"]
    done = subprocess.run([*EUL, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, f"{UNSIGNED}\n")
    assert done.stdout.splitlines()[-1] == f"poems@{bundle.revision}"
    failed = subprocess.run([*EUL, "show", "verse", "--registry", place], capture_output=True, text=True, timeout=60)
    assert (failed.returncode, failed.stdout) == (4, "")
    assert failed.stderr.startswith("eul: verse:stable: not found")


def test_an_interrupt_leaves_with_130(tmp_path: Path) -> None:
    # A named pipe in the place of a bundle's directory would be refused at once; a lock that is held makes it wait.
    import fcntl

    (tmp_path / "registry" / "locks").mkdir(parents=True)
    # A shell that starts the tests in the background has them ignore interrupts, and children inherit that.
    script = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += "from eul_serve.cli.main import group; import eul_serve.cli.ban; print(1, flush=True); "
    script += "group.main(sys.argv[1:])"
    (tmp_path / "registry" / "registry.json").write_text('{"layout":2}')
    with open(tmp_path / "registry" / "locks" / "writers", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = ["ban", f"poems@sha256:{'0' * 64}", "--reason", "a test", "--registry", str(tmp_path / "registry")]
        process = subprocess.Popen(
            [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        while process.poll() is None:  # until it is inside the command, an interrupt may come too early
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "eul: interrupted"


def test_the_progress_of_a_large_copy_is_shown_on_a_terminal_alone(tmp_path: Path, plain_bundle: PlainBundle) -> None:
    import os
    import pty

    bundle = plain_bundle(rank=64, width=4000)
    words = ["publish", str(bundle.path), "--registry", str(tmp_path / "registry"), "--name", "poems"]
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*EUL, *words], stdout=subprocess.PIPE, stderr=follower, env={**os.environ, "TERM": "xterm"}, text=True
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            data = os.read(leader, 1 << 16)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(leader)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"publishing" in shown
    assert output.splitlines()[-1] == f"poems@{bundle.revision}"
    assert "\x1b" not in output
