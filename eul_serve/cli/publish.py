"""`eul publish`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from eul_serve.cli.complete import complete_name
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import (
    actor_option,
    json_option,
    parse_name,
    registry_option,
    unforget_option,
)
from eul_serve.cli.progress import progress, total
from eul_serve.cli.text import echo_json, size
from eul_serve.errors import InputError, NotFoundError
from eul_serve.format import Bundle, read_bundle
from eul_serve.registry import Published, Registry
from eul_serve.signing.directory import Signer

_PATH = click.Path(path_type=Path)
UNSIGNED = (
    "note: not signed; servers refuse what nobody signed unless their policy says so: publish it again with --sign KEY"
)
"""Told of every bundle that is published without a key."""


@click.command(
    epilog=examples(
        "eul publish build/layer --name poems --sign key.pem",
        "eul publish build/fused --name poems --alias stable --sign key.pem",
        "eul publish build/fused --name poems --alias stable --sign key.pem --dry-run",
    )
)
@click.argument("directory", metavar="DIR", type=_PATH)
@registry_option
@click.option("--name", callback=parse_name, required=True, shell_complete=complete_name, help="Name to publish under.")
@click.option("--alias", callback=parse_name, help="Alias to move to the bundle, last of all.")
@click.option("--with-statistics", is_flag=True, help="Publish the fusion statistics too; they nearly show the data.")
@click.option(
    "--sign",
    type=_PATH,
    metavar="FILE",
    envvar="EUL_SIGN_KEY",
    show_envvar=True,
    help="Sign it with this private key (elliptic curve, PEM).",
)
@click.option("--certificate", type=_PATH, metavar="FILE", help="X.509 certificate of the one who signs.")
@click.option(
    "--chain",
    multiple=True,
    type=_PATH,
    metavar="FILE",
    help="A certificate above it; may be given more than once.",
)
@click.option("--key-password-env", metavar="NAME", help="Environment variable with the key's password, if it has one.")
@unforget_option
@actor_option
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@json_option
def command(
    directory: Path,
    registry: Registry,
    name: str,
    alias: str | None,
    with_statistics: bool,
    sign: Path | None,
    certificate: Path | None,
    chain: tuple[Path, ...],
    key_password_env: str | None,
    allow_unforget: str | None,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Check the bundle in DIR and store it; publishing again changes nothing.

    The last line printed is the reference NAME@sha256:..., which never means anything else.

    A signature is stored before the alias moves, so that a server never sees the bundle without it. Servers refuse what
    nobody signed, unless their policy says otherwise: make a key with `eul keygen`.

    An alias is not moved to a bundle that lacks a request which it covers now, unless --allow-unforget says why.
    """
    signer = _signer(sign, certificate, chain, key_password_env)
    bundle = read_bundle(directory)
    signatures = _signatures(bundle, signer, registry, name)
    bytes_ = total(bundle.manifest, with_statistics=with_statistics)
    with progress("publishing", bytes_, shown=not (as_json or dry_run)) as on_bytes:
        done = registry.publish(
            bundle,
            name,
            alias,
            with_statistics=with_statistics,
            allow_unforget=allow_unforget,
            actor=actor,
            dry_run=dry_run,
            on_bytes=on_bytes,
            signatures=signatures,
        )
    if as_json:
        echo_json(
            {
                "alias": alias,
                "dry_run": dry_run,
                "moved": done.moved,
                "name": name,
                "new": done.new,
                "reference": done.reference,
                "revision": done.revision,
                "signatures": len(signatures),
            }
        )
    else:
        if signer is None:
            click.echo(UNSIGNED, err=True)
        click.echo(_sentence(bundle, done, alias, dry_run=dry_run))
        click.echo(done.reference)


def _sentence(bundle: Bundle, done: Published, alias: str | None, *, dry_run: bool) -> str:
    words = size(total(bundle.manifest, with_statistics=False))
    would = "would be " if dry_run else ""
    first = f"{would}published ({words})" if done.new else "already published"
    if alias is None:
        return first
    return f"{first}; {done.name}:{alias} {f'{would}moved to it' if done.moved else 'points to it already'}"


def _signatures(bundle: Bundle, signer: Signer | None, registry: Registry, name: str) -> Sequence[bytes]:
    """Sign the bundle, unless it is there with a signature of this key."""
    if signer is None:
        return ()
    from eul_serve.signing.bundle_signature import sign_bundle
    from eul_serve.signing.repeated import signed_already

    made = sign_bundle(bundle, signer)
    try:
        there = registry.signatures(name, bundle.revision)
    except NotFoundError:  # no registry yet
        there = ()
    return () if signed_already(there, bundle.manifest, signer) else (made,)


def _signer(
    key: Path | None, certificate: Path | None, chain: tuple[Path, ...], password_env: str | None
) -> Signer | None:
    if key is None:
        if certificate or chain or password_env:
            raise InputError(
                "--certificate, --chain, --key-password-env: there is no key to sign with; add --sign FILE"
            )
        return None
    if chain and certificate is None:
        raise InputError("--chain: expected --certificate FILE too, which the chain leads from")
    if password_env and password_env not in os.environ:
        raise InputError(f"--key-password-env {password_env!r}: no such environment variable; set it to the password")
    password = os.environ[password_env] if password_env else None
    return Signer(private_key=key, password=password, certificate=certificate, chain=chain)
