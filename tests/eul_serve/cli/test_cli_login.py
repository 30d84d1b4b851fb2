"""`eul login`: the file that other tools read, of which one entry changes, and no password in sight."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Eul = Callable[..., Result]
HOST = "registry.example.com:5000"


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """The folder of DOCKER_CONFIG, which is not there yet."""
    return tmp_path / "docker"


def _auth(docker: Path, host: str = HOST) -> str:
    content = json.loads((docker / "config.json").read_text())
    return base64.b64decode(content["auths"][host]["auth"]).decode()


def test_a_password_from_the_standard_input_is_kept_for_its_owner_alone(eul: Eul, docker: Path) -> None:
    words = ["login", HOST, "--username", "ann", "--password-stdin"]
    done = eul(*words, text="s3:cret\n", DOCKER_CONFIG=str(docker))
    assert _auth(docker) == "ann:s3:cret"
    assert "s3:cret" not in done.output
    assert "they were not tried yet" in done.stdout
    assert stat.S_IMODE((docker / "config.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(docker.stat().st_mode) == 0o700
    assert [path.name for path in docker.iterdir()] == ["config.json"]


def test_what_is_not_given_is_asked_for(eul: Eul, docker: Path) -> None:
    done = eul("login", HOST, text="ann\nsecret\n", DOCKER_CONFIG=str(docker))
    assert _auth(docker) == "ann:secret"
    assert "secret" not in done.output
    asked = eul("login", HOST, "--username", "bob", "--json", text="other\n", DOCKER_CONFIG=str(docker))
    found = json.loads(asked.stdout)
    assert found == {"file": str(docker / "config.json"), "host": HOST, "username": "bob"}
    assert _auth(docker) == "bob:other"


def test_everything_else_in_the_file_stays(eul: Eul, docker: Path) -> None:
    docker.mkdir()
    before = {
        "HttpHeaders": {"User-Agent": "x"},
        "auths": {"other.example.com": {"auth": "eDp5", "email": "x@y"}},
        "credHelpers": {"third.example.com": "pass"},
    }
    (docker / "config.json").write_text(json.dumps(before))
    (docker / "config.json").chmod(0o644)
    eul("login", HOST, "--username", "ann", "--password-stdin", text="secret", DOCKER_CONFIG=str(docker))
    after = json.loads((docker / "config.json").read_text())
    assert after["auths"].pop(HOST) == {"auth": base64.b64encode(b"ann:secret").decode()}
    assert after == before
    assert stat.S_IMODE((docker / "config.json").stat().st_mode) == 0o600


def test_a_file_that_is_linked_to_stays_where_it_is(eul: Eul, tmp_path: Path, docker: Path) -> None:
    docker.mkdir()
    (tmp_path / "mine.json").write_text("")
    (docker / "config.json").symlink_to(tmp_path / "mine.json")
    eul("login", "docker.io", "--username", "ann", "--password-stdin", text="secret", DOCKER_CONFIG=str(docker))
    assert (docker / "config.json").is_symlink()
    assert _auth(docker, "https://index.docker.io/v1/") == "ann:secret"


def test_without_the_variable_it_is_in_the_home_directory(eul: Eul, tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path / "home"), "DOCKER_CONFIG": ""}
    eul("login", HOST, "--username", "ann", "--password-stdin", text="secret", **variables)
    assert _auth(tmp_path / "home" / ".docker") == "ann:secret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "mend the file or move it away"),
        ("[]", "expected a JSON object"),
        ('{"auths": []}', "auths: expected an object"),
        ('{"credsStore": "desktop"}', "docker-credential-desktop keeps the credentials"),
        (f'{{"credHelpers": {{"{HOST}": "pass"}}}}', "docker-credential-pass keeps the credentials"),
    ],
)
def test_a_file_that_cannot_take_it_stays_as_it_is(eul: Eul, docker: Path, content: str, message: str) -> None:
    docker.mkdir()
    (docker / "config.json").write_text(content)
    words = ["login", HOST, "--username", "ann", "--password-stdin"]
    failed = eul(*words, text="secret", status=2, DOCKER_CONFIG=str(docker))
    assert message in failed.stderr
    assert (failed.stdout, failed.stderr.count("\n")) == ("", 1)
    assert "secret" not in failed.stderr
    assert (docker / "config.json").read_text() == content


@pytest.mark.parametrize(
    ("words", "text", "message"),
    [
        (["https://registry.example.com"], "secret", "leave out the scheme and the path"),
        (["registry.example.com/poems"], "secret", "leave out the scheme and the path"),
        ([HOST, "--username", "a:b"], "secret", "expected a name without a colon"),
        ([HOST, "--username", ""], "secret", "expected a name without a colon"),
        ([HOST, "--username", "ann"], "\n", "a password that is not empty"),
        ([HOST, "--username", "ann"], "x" * 70_000, "is it the right file?"),
    ],
)
def test_what_is_no_login_writes_nothing(eul: Eul, docker: Path, words: list[str], text: str, message: str) -> None:
    words = ["login", *words, "--password-stdin"]
    if "--username" not in words:
        words += ["--username", "ann"]
    failed = eul(*words, text=text, status=2, DOCKER_CONFIG=str(docker))
    assert message in failed.stderr
    assert not docker.exists()


def test_the_standard_input_cannot_be_both(eul: Eul, docker: Path) -> None:
    failed = eul("login", HOST, "--password-stdin", text="secret", status=2, DOCKER_CONFIG=str(docker))
    assert "name the user with --username" in failed.stderr
    assert not docker.exists()


def test_no_option_takes_a_password(eul: Eul, docker: Path) -> None:
    failed = eul("login", HOST, "--username", "ann", "--password", "secret", status=2, DOCKER_CONFIG=str(docker))
    assert "secret" not in failed.stderr
    assert not docker.exists()
