"""Options of the commands that ask a server, and the clients that they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eul_serve.errors import InputError

if TYPE_CHECKING:
    from eul_serve.client import AdminClient, Client, Settings

_F = TypeVar("_F", bound=Callable[..., Any])


def _options(server: str, server_variable: str, token_variable: str) -> Callable[[_F], _F]:
    path = click.Path(path_type=Path)
    options = (
        click.option(
            "--server",
            default=server,
            show_default=True,
            envvar=server_variable,
            show_envvar=True,
            metavar="HOST:PORT",
            help="Address of the server.",
        ),
        click.option(
            "--token",
            envvar=token_variable,
            show_envvar=True,
            help=f"Bearer token. Others here can read command lines: prefer {token_variable} or --token-file.",
        ),
        click.option("--token-file", type=path, help="File that holds the bearer token."),
        click.option("--tls", is_flag=True, help="Encrypt, trusting the system's authorities."),
        click.option("--ca-cert", type=path, help="Encrypt, trusting the authority in this PEM."),
        click.option("--client-cert", type=path, help="PEM of our own certificate."),
        click.option("--client-key", type=path, help="PEM of its private key."),
        click.option("--insecure", is_flag=True, help="Let the token go to another machine in plaintext."),
        click.option("--timeout", type=float, default=300.0, show_default=True, help="Longest wait in seconds."),
    )

    def take(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return take


connection_options = _options("127.0.0.1:8500", "EUL_SERVER", "EUL_TOKEN")
"""Take what `connect` needs."""
admin_options = _options("127.0.0.1:8501", "EUL_ADMIN_SERVER", "EUL_ADMIN_TOKEN")
"""The same, for the administrators' port."""


def connect(server: str, **options: Any) -> Client:  # noqa: ANN401  # the options above
    """Return a client for the options of `connection_options`.

    Args:
        server: `HOST:PORT`.
        **options: As `settings_of`.

    Returns:
        The client.
    """
    settings = settings_of(server, **options)
    from eul_serve.client import Client

    return Client(server, settings.token, settings=settings)


def connect_admin(server: str, **options: Any) -> AdminClient:  # noqa: ANN401  # the options above
    """Return an administrator's client for the options of `admin_options`.

    Args:
        server: `HOST:PORT`.
        **options: As `settings_of`.

    Returns:
        The client.
    """
    settings = settings_of(server, **options)
    from eul_serve.client import AdminClient

    return AdminClient(server, settings.token, settings=settings)


def settings_of(
    server: str,
    token: str | None,
    token_file: Path | None,
    tls: bool,
    ca_cert: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    insecure: bool,
    timeout: float,
) -> Settings:
    """Return the settings for the options.

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
        The settings.

    Raises:
        InputError: An option is not acceptable.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # every error is one line of ours; read when grpc is imported
    from eul_serve.client import Settings, read_token

    if token_file is not None:
        token = read_token(token_file)
    if not timeout > 0:
        raise InputError(f"--timeout: expected above 0 seconds, found {timeout:g}")
    return Settings(
        address=server,
        token=token,
        tls=tls,
        ca_certificate=ca_cert,
        certificate=client_cert,
        key=client_key,
        insecure=insecure,
        timeout_seconds=timeout,
    )
