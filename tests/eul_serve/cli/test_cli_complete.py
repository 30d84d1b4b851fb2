"""What a shell offers at the Tab key; nothing, and no word, where anything fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from eul_serve.cli import complete
from eul_serve.cli.main import group
from eul_serve.format import Bundle
from eul_serve.registry.local import LocalRegistry

PlainBundle = Callable[..., Bundle]
Eul = Callable[..., Result]


@pytest.fixture
def bundle(tmp_path: Path, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle that is published as poems and as prose."""
    made = plain_bundle()
    registry = LocalRegistry(tmp_path / "registry")
    registry.publish(made, "poems", "stable")
    registry.publish(made, "poems", "next")
    registry.publish(made, "prose")
    monkeypatch.setenv("EUL_REGISTRY", str(tmp_path / "registry"))
    return made


def offered(*words: str) -> list[str]:
    """What is offered for the last word."""
    shell = ShellComplete(group, {}, "eul", "_EUL_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_references_names_and_aliases_are_those_of_the_registry(bundle: Bundle) -> None:
    assert offered("show", "") == ["poems", "prose"]
    assert offered("show", "pr") == ["prose", f"prose@{bundle.revision}"][:1]
    assert offered("show", "poems") == ["poems", "poems:next", "poems:stable", f"poems@{bundle.revision}"]
    assert offered("show", "poems:s") == ["poems:stable"]
    assert offered("pull", "prose@") == [f"prose@{bundle.revision}"]
    assert offered("diff", "poems", "pro") == ["prose"]
    assert offered("rollback", "p") == ["poems", "prose"]
    assert offered("rollback", "poems", "") == ["next", "stable"]
    assert offered("promote", f"poems@{bundle.revision}", "s") == ["stable"]
    assert offered("publish", "dir", "--name", "po") == ["poems"]
    assert offered("list", "x") == []


def test_another_registry_on_the_line_is_the_one_that_is_asked(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalRegistry(tmp_path / "other").publish(bundle, "verse")
    assert offered("show", "--registry", str(tmp_path / "other"), "") == ["verse"]


def test_commands_are_offered_without_importing_one(bundle: Bundle) -> None:
    script = """
import sys
from click.shell_completion import ShellComplete
from eul_serve.cli.main import ENTRIES, group
items = ShellComplete(group, {}, "eul", "_EUL_COMPLETE").get_completions([], "")
assert [item.value for item in items] == list(ENTRIES), items
assert all(item.help for item in items)
assert not [name for name in sys.modules if name in {entry.module for entry in ENTRIES.values()}]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert offered("pu") == ["publish", "pull"]
    assert "--version" in offered("--")


@pytest.mark.parametrize("url", ["", "/nowhere", "ftp://host", "s3://"])
def test_nothing_is_offered_where_the_registry_cannot_be_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EUL_REGISTRY", url)
    for words in (["show", ""], ["rollback", ""], ["rollback", "poems", ""], ["promote", "poems", ""], ["hold", "x"]):
        assert offered(*words) == []


def test_a_damaged_registry_offers_nothing_and_says_nothing(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "registry" / "registry.json").write_text("{")
    assert offered("show", "") == []
    assert capfd.readouterr() == ("", "")


def test_a_registry_that_does_not_answer_is_not_waited_for(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(LocalRegistry, "names", lambda _: answer.wait(60) and [])
    monkeypatch.setattr(complete, "SECONDS", 0.1)
    started = time.monotonic()
    assert offered("show", "") == []
    assert time.monotonic() - started < 30
    answer.set()


def test_bash_offers_them(bundle: Bundle, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "eul"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom eul_serve.cli.main import main\nmain()\n")
    program.chmod(0o755)
    script = """
eval "$(_EUL_COMPLETE=bash_source eul)"
complete -p eul
offer() { COMP_WORDS=(eul "$@"); COMP_CWORD=$#; COMPREPLY=(); _eul_completion eul; echo "${COMPREPLY[@]}"; }
offer show poems:
offer rollback poems ''
offer pub
EUL_REGISTRY=/nowhere offer show ''
"""
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=120, env={**os.environ, "PATH": path}
    )
    assert (done.returncode, done.stderr) == (0, "")
    setup, *lines = done.stdout.splitlines()
    assert "_eul_completion eul" in setup
    assert lines == ["poems:next poems:stable", "next stable", "publish", ""]
