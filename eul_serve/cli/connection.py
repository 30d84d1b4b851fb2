"""Options of the commands that ask a server, and the client that they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eul_serve.errors import InputError

if TYPE_CHECKING:
    from eul_serve.client import Client

_F = TypeVar("_F", bound=Callable[..., Any])


def connection_options(function: _F) -> _F:
    """Take what `connect` needs."""
    options = (
        click.option(
            "--server",
            default="127.0.0.1:8500",
            show_default=True,
            envvar="EUL_SERVER",
            show_envvar=True,
            metavar="HOST:PORT",
            help="Address of the server.",
        ),
        click.option(
            "--token",
            envvar="EUL_TOKEN",
            show_envvar=True,
            help="Bearer token. Others on this machine can read command lines: prefer EUL_TOKEN or --token-file.",
        ),
        click.option("--token-file", type=click.Path(path_type=Path), help="File that holds the bearer token."),
        click.option("--tls", is_flag=True, help="Encrypt, trusting the system's authorities."),
        click.option("--ca-cert", type=click.Path(path_type=Path), help="Encrypt, trusting the authority in this PEM."),
        click.option("--client-cert", type=click.Path(path_type=Path), help="PEM of our own certificate."),
        click.option("--client-key", type=click.Path(path_type=Path), help="PEM of its private key."),
        click.option("--insecure", is_flag=True, help="Let the token go to another machine in plaintext."),
        click.option("--timeout", type=float, default=300.0, show_default=True, help="Longest wait in seconds."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def connect(
    server: str,
    token: str | None,
    token_file: Path | None,
    tls: bool,
    ca_cert: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    insecure: bool,
    timeout: float,
) -> Client:
    """Return a client for the options.

    Args:
        server: `HOST:PORT`.
        token: Bearer token.
        token_file: File that holds it instead.
        tls: Whether to encrypt.
        ca_cert: PEM of the authority to trust.
        client_cert: PEM of our own certificate.
        client_key: PEM of its private key.
        insecure: Whether a token may leave this machine in plaintext.
        timeout: Longest wait in seconds.

    Returns:
        The client.

    Raises:
        InputError: An option is not acceptable.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # every error is one line of ours; read when grpc is imported
    from eul_serve.client import Client, Settings, read_token

    if token_file is not None:
        token = read_token(token_file)
    if not timeout > 0:
        raise InputError(f"--timeout: expected above 0 seconds, found {timeout:g}")
    settings = Settings(
        address=server,
        token=token,
        tls=tls,
        ca_certificate=ca_cert,
        certificate=client_cert,
        key=client_key,
        insecure=insecure,
        timeout_seconds=timeout,
    )
    return Client(server, token, settings=settings)
