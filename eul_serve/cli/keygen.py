"""`eul keygen`."""

from __future__ import annotations

from pathlib import Path

import click

from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.cli.text import echo_json
from eul_serve.signing import key_fingerprint, make_keys

_PATH = click.Path(path_type=Path)


@click.command(epilog=examples("eul keygen --private key.pem --public key.pub"))
@click.option("--private", required=True, type=_PATH, metavar="FILE", help="File of the private key; must be new.")
@click.option("--public", required=True, type=_PATH, metavar="FILE", help="File of the public key; must be new.")
@json_option
def command(private: Path, public: Path, as_json: bool) -> None:
    """Make a pair of keys for certificates: elliptic curve P-256, PEM, without a password.

    Keep the private key where only those who may sign can read it, and give the public one to whoever verifies. The
    last line printed is the public key's fingerprint, by which `eul ban --signer` knows it.
    """
    make_keys(private, public)
    fingerprint = key_fingerprint(public)
    if as_json:
        echo_json({"fingerprint": fingerprint, "private": str(private), "public": str(public)})
    else:
        click.echo(f"wrote {private} (keep it secret) and {public}")
        click.echo(fingerprint)
