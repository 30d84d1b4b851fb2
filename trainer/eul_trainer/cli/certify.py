"""`eul-train certify`: a signed statement of what a bundle was shown to forget and keep."""

from __future__ import annotations

import os
from pathlib import Path

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.output.directory import check_output, unfinished


@click.command(name="certify")
@click.option("--bundle", required=True, type=options.PATH, metavar="DIR", help="The bundle.")
@click.option("--evaluation", required=True, type=options.PATH, metavar="DIR", help="What `eval` wrote of it.")
@options.attacks
@click.option(
    "--policy",
    type=options.PATH,
    metavar="FILE",
    help="The policy that `eval` judged by; the built-in one unless given.",
)
@click.option(
    "--key", required=True, type=options.PATH, metavar="FILE", help="Private key, PEM; `eul keygen` makes one."
)
@click.option("--key-password-env", metavar="NAME", help="Environment variable with the key's password, if it has one.")
@click.option(
    "--certificate", type=options.PATH, metavar="FILE", help="The signer's X.509 certificate, if there is one."
)
@click.option(
    "--chain",
    multiple=True,
    type=options.PATH,
    metavar="FILE",
    help="A certificate above the signer's; may be given more than once.",
)
@options.out
@options.as_json
def command(
    bundle: Path,
    evaluation: Path,
    attacks: tuple[Path, ...],
    policy: Path | None,
    key: Path,
    key_password_env: str | None,
    certificate: Path | None,
    chain: tuple[Path, ...],
    out: Path,
    as_json: bool,
) -> None:
    """State what a bundle was shown to forget and to keep, and sign it.

    Binds the requests' ids and digests, the base model, the bundle, means, attacks, the evaluator's code and the
    policy. It holds no row: the files that do are named by digest. Refused where the bundle does not pass the policy,
    or where evaluation, attacks and bundle do not belong together. Check it with `eul verify --certificate`.

    `eul keygen --private key.pem --public key.pub` makes the keys.

    \b
    Examples:
      eul-train certify --bundle fused --evaluation report --attack attacks/prompts --key key.pem --out certificate
      eul verify fused --certificate certificate --public-key key.pub
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_serve.format import read_bundle
    from eul_serve.signing import Signer, write_certificate
    from eul_trainer.evaluation.certify import make_statement
    from eul_trainer.evaluation.policy import DEFAULT, read_policy

    check_output(out)
    rules = policy or DEFAULT
    statement = make_statement(read_bundle(bundle), evaluation, attacks, read_policy(rules))
    password = os.environ.get(key_password_env) if key_password_env else None
    signer = Signer(private_key=key, password=password, certificate=certificate, chain=chain)
    with unfinished(out) as part:
        write_certificate(part, statement, rules.read_bytes(), signer)
        os.replace(part, out)
    if as_json:
        emit({"path": str(out), "revision": statement.revision, "verdict": statement.verdict})
        return
    click.echo(f"{statement.verdict['sentence']}; {len(statement.requests)} requests, {len(attacks)} attacks")
    click.echo(f"wrote {out}")
