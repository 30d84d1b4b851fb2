"""Who may sign which bundles: the sections `[signers.NAME]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import check_name
from eul_serve.policy.section import Section
from eul_serve.signing import TrustedSigner
from eul_serve.signing.chain import load_authorities
from eul_serve.signing.keys import digest_key, load_public_key

EVERY = ("*",)
"""The bundles of a signer that names none."""
MAX_KEY_BYTES = 1 << 20
"""Most bytes of a file with a key or with certificates."""
_KEYS = ("bundles", "certificates", "identity", "not_after", "public_key")
_PATTERN = re.compile(r"[a-z0-9*][a-z0-9._*-]{0,62}")
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerRules:
    """One signer, and what it may sign."""

    trusted: TrustedSigner
    """How its signatures are known."""
    bundles: tuple[str, ...] = EVERY
    """Names of bundles, `*` for any characters of a name."""

    def may_sign(self, name: str) -> bool:
        """Return whether the signer may sign bundles that are published under a name."""
        return any(fnmatchcase(name, pattern) for pattern in self.bundles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """All signers of a policy."""

    by_name: Mapping[str, SignerRules] = field(default_factory=dict)
    """Signers by the policy's name for them."""

    def for_bundle(self, name: str) -> tuple[TrustedSigner, ...]:
        """Return whom to believe of a bundle.

        Args:
            name: The name that it is published under.

        Returns:
            The signers that may sign it, for `verify_bundle_signature`.
        """
        return tuple(rules.trusted for rules in self.by_name.values() if rules.may_sign(name))


def read_signers(file: Section, folder: Path) -> Signers:
    """Read the sections, and the files that they name.

    Args:
        file: The policy.
        folder: Where its files are looked for.

    Returns:
        The signers.

    Raises:
        InputError: A key is unknown or missing, a value is not acceptable, a file cannot be read, or two signers have
            one key; names it.
    """
    found: dict[str, SignerRules] = {}
    holders: dict[str, str] = {}
    for name, section in file.sections("signers"):
        section.allow(*_KEYS)
        section.parsed("name", lambda text: check_name(text, "signer"), name)
        found[name] = SignerRules(trusted=_trusted(name, section, folder), bundles=_bundles(section))
        if key := found[name].trusted.public_key:
            other = holders.setdefault(digest_key(load_public_key(key)), name)
            if other != name:
                raise InputError(f"{section.where}: public_key: {other!r} has the same key; name it once")
    return Signers(by_name=found)


def _trusted(name: str, section: Section, folder: Path) -> TrustedSigner:
    key, certificates, identity = section.text("public_key"), section.texts("certificates"), section.text("identity")
    if bool(key) == bool(certificates):
        raise InputError(f"{section.where}: expected public_key or certificates; give one of the two")
    if bool(certificates) != bool(identity):
        raise InputError(f"{section.where}: identity: belongs to certificates: whom the signer's own must name")
    text = section.text("not_after")
    return TrustedSigner(
        name=name,
        public_key=section.parsed("public_key", partial(_read, folder, load_public_key), key) if key else b"",
        certificates=b"\n".join(
            section.parsed("certificates", partial(_read, folder, load_authorities), file) for file in certificates
        ),
        identity=identity or "",
        not_after=None if text is None else section.parsed("not_after", _moment, text),
    )


def _bundles(section: Section) -> tuple[str, ...]:
    if "bundles" not in section.table:
        return EVERY
    patterns = tuple(section.parsed("bundles", _pattern, text) for text in section.texts("bundles"))
    if not patterns:
        raise InputError(f"{section.where}: bundles: expected a name or more; left out, it means every bundle")
    return patterns


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text) or ".." in text:
        raise InputError(f"{text[:100]!r}: expected the name of a bundle, with '*' for any characters of it")
    return text


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC)
    except ValueError as error:
        raise InputError(f"{text[:100]!r}: expected a moment in UTC, such as 2027-01-01T00:00:00Z") from error


def _read(folder: Path, load: Callable[[bytes], object], file: str) -> bytes:
    """Return the bytes of a file of a policy's folder that `load` understands."""
    path = folder / file
    data = _read_small(path)
    try:
        load(data)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from error
    return data


def _read_small(path: Path) -> bytes:
    """Read a small file. Links are followed, as Kubernetes mounts files through them."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)!r}: cannot read: {reason}; expected a file in PEM") from error
    if len(data) > MAX_KEY_BYTES:
        raise InputError(f"{str(path)!r}: expected at most {MAX_KEY_BYTES} bytes")
    return data
