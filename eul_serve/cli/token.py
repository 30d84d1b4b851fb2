"""`eul token`."""

from __future__ import annotations

import secrets

import click

from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.cli.text import echo_json
from eul_serve.policy import hash_token

TOKEN_BYTES = 32


@click.command(epilog=examples("eul token"))
@json_option
def command(as_json: bool) -> None:
    """Make a random bearer token, and the hash that goes into `token_sha256` of a policy.

    Give the token to the tenant and keep the hash; the token is shown once and stored nowhere.
    """
    token = f"eul_{secrets.token_urlsafe(TOKEN_BYTES)}"
    if as_json:
        echo_json({"sha256": hash_token(token), "token": token})
    else:
        click.echo(f"token         {token}")
        click.echo(f"token_sha256  {hash_token(token)}")
