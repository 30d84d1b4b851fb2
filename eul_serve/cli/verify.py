"""`eul verify`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from eul_serve.cli.complete import complete_reference
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import REGISTRY_HELP, json_option, parse_registry
from eul_serve.cli.text import echo_json
from eul_serve.errors import InputError
from eul_serve.format import Bundle, Reference, fingerprint, read_bundle
from eul_serve.registry import Registry
from eul_serve.signing import Trust, check_certificate

_PATH = click.Path(path_type=Path)


@click.command(epilog=examples("eul verify build/layer", "eul verify poems:stable --model build/base"))
@click.argument("target", metavar="REF|DIR", shell_complete=complete_reference)
@click.option(
    "--registry",
    metavar="URL",
    callback=parse_registry,
    envvar="EUL_REGISTRY",
    show_envvar=True,
    help=REGISTRY_HELP,
)
@click.option(
    "--model",
    type=_PATH,
    help="Also check that the bundle was made for this base model directory.",
)
@click.option("--certificate", type=_PATH, metavar="DIR", help="Also check a certificate, and that it is the bundle's.")
@click.option("--public-key", type=_PATH, metavar="FILE", help="Public key of the one who signed the certificate.")
@click.option(
    "--chain",
    multiple=True,
    type=_PATH,
    metavar="FILE",
    help="Instead: X.509 certificates up to one that you believe; may be given more than once.",
)
@click.option(
    "--evidence",
    multiple=True,
    metavar="NAME=FILE",
    help="A file that the certificate rests on, to be compared, such as metrics.json=report/metrics.json; may be given "
    "more than once.",
)
@json_option
def command(
    target: str,
    registry: Registry | None,
    model: Path | None,
    certificate: Path | None,
    public_key: Path | None,
    chain: tuple[Path, ...],
    evidence: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check every byte of a bundle: digests, names, shapes, dtypes and finite values.

    What has a `/` in it, or is a directory here, is read as DIR; write NAME:ALIAS to be sure of the registry.

    With a certificate also what was shown of it: the signature, that it is of this bundle, base model and requests, and
    that it passed its policy.
    """
    if not certificate and (public_key or chain or evidence):
        raise InputError("--public-key, --chain, --evidence: there is no certificate to check; add --certificate DIR")
    base = None if model is None else fingerprint(model)
    if "/" in target or Path(target).is_dir():
        bundle, name = read_bundle(Path(target), base), target
    else:
        bundle, name = _verify_stored(registry, Reference.parse(target), base)
    shown = None
    if certificate:
        trust = Trust(public_key=public_key, certificates=chain)
        shown = check_certificate(certificate, trust, bundle, _files(evidence))
    if as_json:
        requests = sorted(bundle.manifest.request_ids)
        found = {"canaries": len(bundle.canaries), "requests": requests, "revision": bundle.revision}
        found |= {"target": name, "verified": True}
        echo_json(found | ({"certificate": {"issued": shown.issued, "verdict": shown.verdict}} if shown else {}))
    else:
        what = f"layers {len(bundle.widths)}, rank {bundle.config.rank}"
        what += f", canaries {len(bundle.canaries)}" if bundle.canaries else ""
        click.echo(f"verified: {what}; digests and values are right")
        click.echo(bundle.revision if name == target else name)
        if shown:
            click.echo(f"certified {shown.issued}: {shown.verdict['sentence']}")


def _verify_stored(registry: Registry | None, reference: Reference, base: str | None) -> tuple[Bundle, str]:
    if registry is None:
        raise InputError(
            f"{str(reference)!r}: no directory of that name, and no registry; pass --registry or EUL_REGISTRY"
        )
    revision = registry.resolve(reference)
    with tempfile.TemporaryDirectory(prefix="eul-verify-") as place:
        registry.fetch(reference.name, revision, Path(place) / "bundle")
        return read_bundle(Path(place) / "bundle", base), f"{reference.name}@{revision}"


def _files(evidence: tuple[str, ...]) -> dict[str, Path]:
    files = {}
    for pair in evidence:
        name, sign, path = pair.partition("=")
        if not sign or not path:
            raise InputError(f"--evidence: expected NAME=FILE, found {pair!r:.100}")
        files[name] = Path(path)
    return files
