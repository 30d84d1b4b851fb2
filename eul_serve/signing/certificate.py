"""A certificate as a directory: `statement.json`, `policy.toml`, and beside them `certificate.sig` over both.

certificate/
  signed/statement.json     what was shown
  signed/policy.toml        by which rules
  certificate.sig           the signature over `signed`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from eul_serve.errors import BundleFormatError, InputError, RefusedError
from eul_serve.format import Bundle
from eul_serve.format.digest import digest_bytes, digest_file
from eul_serve.signing.directory import Signer, Trust, sign_directory, verify_directory
from eul_serve.signing.statement import Statement

SIGNED, STATEMENT, POLICY, SIGNATURE = "signed", "statement.json", "policy.toml", "certificate.sig"
MAX_STATEMENT = 64 << 20
"""Most bytes of a statement."""


def write_certificate(folder: Path, statement: Statement, policy: bytes, signer: Signer) -> None:
    """Fill a directory with a signed statement.

    Args:
        folder: The directory; it is there and empty.
        statement: The statement.
        policy: The policy file that judged.
        signer: Who signs.

    Raises:
        InputError: The policy is another one than the statement names, or the key cannot be used.
        CapacityError: A file cannot be written.
    """
    if digest_bytes(policy) != statement.policy:
        raise InputError("--policy: it is not the file that the evaluation was judged by; give that one")
    (folder / SIGNED).mkdir()
    (folder / SIGNED / STATEMENT).write_bytes(statement.dump())
    (folder / SIGNED / POLICY).write_bytes(policy)
    sign_directory(folder / SIGNED, folder / SIGNATURE, signer)


def check_certificate(
    folder: Path, trust: Trust, bundle: Bundle, evidence: Mapping[str, Path] | None = None
) -> Statement:
    """Check a certificate: its signature, that it speaks of a bundle, that it passed, and the files it rests on.

    Args:
        folder: The certificate's directory.
        trust: Whom to believe.
        bundle: The bundle, its files checked already.
        evidence: Files to compare with the digests that it names, by name; none compares none.

    Returns:
        What it states.

    Raises:
        InputError: It cannot be read, or a file is named that it does not rest on.
        BundleFormatError: What is signed is no statement.
        RefusedError: The signature does not hold, it speaks of another bundle, base model or requests, it did not
            pass its policy, or a file differs.
    """
    verify_directory(folder / SIGNED, folder / SIGNATURE, trust)
    path = folder / SIGNED / STATEMENT
    if not path.is_file() or path.stat().st_size > MAX_STATEMENT:
        raise BundleFormatError(f"certificate {str(folder)!r}: expected {SIGNED}/{STATEMENT} of at most 64 MiB")
    statement = Statement.parse(path.read_bytes())
    where = f"certificate {str(folder)!r}"
    if digest_file(folder / SIGNED / POLICY) != statement.policy:
        raise RefusedError(f"{where}: its policy is not the one that judged; do not use it")
    _check_subject(where, statement, bundle)
    for name, file in (evidence or {}).items():
        _check_evidence(where, statement, name, file)
    return statement


def _check_subject(where: str, statement: Statement, bundle: Bundle) -> None:
    manifest = bundle.manifest
    requests = {request.id: request.data for request in manifest.requests}
    for what, stated, found in (
        ("revision", statement.revision, bundle.revision),
        ("base model", statement.base, manifest.base.fingerprint),
        ("requests", json.dumps(dict(statement.requests), sort_keys=True), json.dumps(requests, sort_keys=True)),
    ):
        if stated != found:
            raise RefusedError(f"{where}: it speaks of another {what}: {stated:.100}, this bundle has {found:.100}")
    if statement.verdict.get("passed") is not True:
        raise RefusedError(f"{where}: the bundle did not pass its policy: {statement.verdict.get('sentence')!s:.300}")


def _check_evidence(where: str, statement: Statement, name: str, file: Path) -> None:
    if name not in statement.evidence:
        known = ", ".join(sorted(statement.evidence))
        raise InputError(f"{where}: it does not rest on a file called {name!r}; it names {known}")
    if digest_file(file) != statement.evidence[name]:
        raise RefusedError(f"{where}: {name} ({str(file)!r}) is not the file that it rests on; do not use it")
