"""`eul verify`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option, parse_registry
from eul_serve.cli.text import echo_json
from eul_serve.errors import InputError
from eul_serve.format import Bundle, Reference, fingerprint, read_bundle
from eul_serve.registry import Registry


@click.command(epilog=examples("eul verify build/layer", "eul verify poems:stable --model build/base"))
@click.argument("target", metavar="REF|DIR")
@click.option(
    "--registry",
    metavar="URL",
    callback=parse_registry,
    envvar="EUL_REGISTRY",
    show_envvar=True,
    help="The registry, for a REF: a directory, or file:///DIRECTORY.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Also check that the bundle was made for this base model directory.",
)
@json_option
def command(target: str, registry: Registry | None, model: Path | None, as_json: bool) -> None:
    """Check every byte of a bundle: digests, names, shapes, dtypes and finite values.

    What has a `/` in it, or is a directory here, is read as DIR; write NAME:ALIAS to be sure of the registry.
    """
    base = None if model is None else fingerprint(model)
    if "/" in target or Path(target).is_dir():
        bundle, name = read_bundle(Path(target), base), target
    else:
        bundle, name = _verify_stored(registry, Reference.parse(target), base)
    if as_json:
        requests = sorted(bundle.manifest.request_ids)
        echo_json({"requests": requests, "revision": bundle.revision, "target": name, "verified": True})
    else:
        click.echo(f"verified: layers {len(bundle.widths)}, rank {bundle.config.rank}; digests and values are right")
        click.echo(bundle.revision if name == target else name)


def _verify_stored(registry: Registry | None, reference: Reference, base: str | None) -> tuple[Bundle, str]:
    if registry is None:
        raise InputError(
            f"{str(reference)!r}: no directory of that name, and no registry; pass --registry or EUL_REGISTRY"
        )
    revision = registry.resolve(reference)
    with tempfile.TemporaryDirectory(prefix="eul-verify-") as place:
        registry.fetch(reference.name, revision, Path(place) / "bundle")
        return read_bundle(Path(place) / "bundle", base), f"{reference.name}@{revision}"
