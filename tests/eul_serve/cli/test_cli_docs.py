"""The reference says what the command line can do: no command or option is missing, none is invented."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from eul_serve.cli.main import ENTRIES, group
from eul_serve.policy import RIGHTS, load_policy
from eul_serve.signing import make_keys
from tests.eul_serve.signing.authority import Authority

DOCS = Path(__file__).parents[3] / "docs" / "reference"
SECTIONS = dict(
    re.findall(r"^## eul (\S+)\n(.*?)(?=^## |\Z)", (DOCS / "cli-eul.md").read_text(), re.DOTALL | re.MULTILINE)
)


def test_every_command_has_its_section_in_order() -> None:
    assert sorted(SECTIONS) == sorted(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_options_of_a_section_are_those_of_the_command(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    real = {
        word
        for parameter in command.params
        for word in parameter.opts + parameter.secondary_opts
        if word.startswith("--")
    }
    written = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", SECTIONS[name]))
    assert written == real


def test_the_policys_examples_are_policies_and_its_rights_all_there_are(tmp_path: Path) -> None:
    text = (DOCS / "policy.md").read_text()
    policy, tokens = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "policy.toml").write_text(policy)
    (tmp_path / "tokens.toml").write_text(tokens)
    make_keys(tmp_path / "ana.pem", tmp_path / "ana.pub")
    Authority(tmp_path, "authority")
    assert sorted(load_policy(tmp_path / "policy.toml", tmp_path / "tokens.toml").tenants) == ["acme", "research"]
    rights = text.split("## Rights")[1].split("## Tokens")[0]
    assert re.findall(r"^\| `(\w+)` \|", rights, re.MULTILINE) == list(RIGHTS)
