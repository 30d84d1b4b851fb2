"""`eul login`."""

from __future__ import annotations

import sys

import click

from eul_serve.cli.docker_config import check_host, config_path, store_login
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.cli.text import echo_json
from eul_serve.errors import InputError

MAX_PASSWORD = 1 << 16


@click.command(
    epilog=examples(
        "eul login registry.example.com --username ann",
        "eul login registry.example.com --username ann --password-stdin < token.txt",
    )
)
@click.argument("host", metavar="HOST")
@click.option("--username", metavar="NAME", help="User of the registry; asked for where it is left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from the standard input.")
@json_option
def command(host: str, username: str | None, password_stdin: bool, as_json: bool) -> None:
    """Keep the credentials of an OCI registry where `docker login` and `oras login` keep them.

    That is `config.json` in DOCKER_CONFIG, or in `.docker` of your home directory: for your eyes alone, not encrypted.

    The password is asked for, or read with --password-stdin; it is never an argument, as others can read those. Whether
    the registry accepts it shows at the first `eul publish` or `eul pull`.
    """
    entry = check_host(host)
    if password_stdin and username is None:
        raise InputError("--password-stdin: the standard input holds the password alone; name the user with --username")
    user = click.prompt("Username", err=True) if username is None else username
    store_login(config_path(), entry, user, _password(from_stdin=password_stdin))
    if as_json:
        echo_json({"file": str(config_path()), "host": host, "username": user})
    else:
        click.echo(f"credentials of {user} for {host} are in {config_path()}; they were not tried yet")


def _password(*, from_stdin: bool) -> str:
    if not from_stdin:
        asked: str = click.prompt("Password or token", hide_input=True, err=True)
        return asked
    text = sys.stdin.read(MAX_PASSWORD + 1)
    if len(text) > MAX_PASSWORD:
        raise InputError(f"--password-stdin: expected at most {MAX_PASSWORD} characters; is it the right file?")
    return text.rstrip("\r\n")
