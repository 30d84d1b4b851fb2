"""Options of the commands that may ask a running server, the connection that they make, and what is told of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_serve.errors import InputError
from eul_trainer.allowed import check
from eul_trainer.cli import options
from eul_trainer.cli.asked import Asked
from eul_trainer.evaluation.answerer import SERVER

if TYPE_CHECKING:
    from eul_serve.client import Settings

TOKEN = "EUL_TOKEN"  # noqa: S105  # the variable's name, as `eul` reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Which server answers, and how to reach it."""

    server: str | None
    """`HOST:PORT`; None where transformers answers."""
    token_file: Path | None
    """File with the bearer token; EUL_TOKEN unless given."""
    served: tuple[str, ...]
    """What the server calls bundles, `SYSTEM=NAME` each."""
    tls: bool
    """Whether to encrypt, trusting the system's authorities."""
    ca_cert: Path | None
    """PEM of the authority to trust instead."""
    insecure: bool
    """Whether the token may go to another machine in plaintext."""
    timeout: float
    """Longest wait for one answer in seconds."""

    def settings(self) -> Settings:
        """Return what the client is made of."""
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # every error is one line of ours; read when grpc is imported
        from eul_serve.client import Settings, read_token

        check(self.timeout > 0, "timeout", self.timeout, "above 0 seconds")
        return Settings(
            address=self.server or "",
            token=read_token(self.token_file) if self.token_file else os.environ.get(TOKEN),
            tls=self.tls,
            ca_certificate=self.ca_cert,
            insecure=self.insecure,
            timeout_seconds=self.timeout,
        )

    def names(self) -> dict[str, str]:
        """Return what the server calls bundles, by system."""
        from eul_serve.format import Reference

        pairs = [text.partition("=") for text in self.served]
        for system, equals, name in pairs:
            if not equals:
                raise InputError(f"--served {system!r}: expected SYSTEM=NAME, such as fused=poems:stable")
            Reference.parse(name)
        return {system: name for system, _, name in pairs}


def server_options(run: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a server, which it gets as one: `server`."""

    @wraps(run)
    def packed(**given: Any) -> None:  # noqa: ANN401  # the options
        run(server=ServerOptions(**{part.name: given.pop(part.name) for part in fields(ServerOptions)}), **given)

    return _take(packed)


def _take(run: Callable[..., None]) -> Callable[..., None]:
    shared = [
        click.option(
            "--server",
            metavar="HOST:PORT",
            help="Let this running `eul serve` give the answers of what it serves; losses stay with transformers.",
        ),
        click.option(
            "--server-token",
            "--token-file",
            "token_file",
            type=options.PATH,
            metavar="FILE",
            help=f"File with the server's bearer token; {TOKEN} unless given.",
        ),
        click.option(
            "--served",
            multiple=True,
            metavar="SYSTEM=NAME",
            help="What the server calls a bundle: a name, NAME:ALIAS or NAME@sha256:...; found by its revision unless "
            "given.",
        ),
        click.option("--tls", is_flag=True, help="Encrypt, trusting the system's authorities."),
        click.option(
            "--ca-cert", type=options.PATH, metavar="FILE", help="Encrypt, trusting the authority in this PEM."
        ),
        click.option("--insecure", is_flag=True, help="Let the token go to another machine in plaintext."),
        click.option(
            "--timeout", type=float, default=300.0, show_default=True, help="Longest wait for an answer in seconds."
        ),
    ]
    for option in reversed(shared):
        run = option(run)
    return run


@contextmanager
def reached(asked: Asked, given: ServerOptions) -> Iterator[Asked]:
    """Connect to the server, if one is asked for, and find the bundles there.

    Args:
        asked: What is measured.
        given: The server.

    Yields:
        What is measured, with the server.

    Raises:
        EulError: An option is not acceptable, or the server refuses or does not serve a bundle.
    """
    if given.server is None:
        if given.served or given.token_file:
            raise InputError("--served and --server-token speak of a server; name it with --server HOST:PORT")
        yield asked
        return
    if not asked.bundles:
        raise InputError(
            "--server: expected a --bundle too; the name `base` alone does not say of which base model answers are"
        )
    settings, names = given.settings(), given.names()
    from eul_trainer.evaluation.server import open_server

    with open_server(settings, asked.bundles, names) as server:
        yield replace(asked, server=server)


def tell_answered(answered: Mapping[str, str], agreement: Mapping[str, Mapping[str, Any]]) -> None:
    """Say which answers come from a server, and how far they are those of transformers; nothing without a server."""
    if SERVER not in answered.values():
        return
    for name, where in answered.items():
        same = ""
        if found := agreement.get(name):
            same = f"; {found['same']:.0%} of {found['rows']} compared are word for word those of transformers"
        click.echo(f"{name}: answers of {'the server' if where == SERVER else where}{same}")
