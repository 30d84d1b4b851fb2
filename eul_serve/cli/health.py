"""`eul health`."""

from __future__ import annotations

from typing import Any

import click

from eul_serve.cli.connection import connect, connection_options
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.cli.text import echo_json
from eul_serve.errors import EngineError


@click.command(epilog=examples("eul health", "eul health --live --server 127.0.0.1:8500"))
@click.option("--live", is_flag=True, help="Ask whether the server lives, not whether it takes requests.")
@connection_options
@json_option
def command(live: bool, as_json: bool, **connection: Any) -> None:  # noqa: ANN401  # the options of `connect`
    """Ask a server whether it takes requests; needs no token. Leaves with status 7 where it does not."""
    with connect(**connection) as client:
        serving = client.health("") if live else client.health()
    if not serving:
        raise EngineError(f"server {connection['server']}: not serving (it starts or drains); try again later")
    if as_json:
        echo_json({"serving": True})
    else:
        click.echo("serving")
