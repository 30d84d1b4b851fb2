"""From a policy file, and a second one of tokens alone, to a checked policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import Reference, check_digest, check_name
from eul_serve.policy.canary_rules import read_canaries
from eul_serve.policy.epoch import epoch_of
from eul_serve.policy.jwt_rules import read_jwt
from eul_serve.policy.policy import Admin, Policy
from eul_serve.policy.quota import PRIORITIES, Quota
from eul_serve.policy.rights import RIGHTS, Right
from eul_serve.policy.section import Section
from eul_serve.policy.signers import read_signers
from eul_serve.policy.tenant import BASE, Base, Grant, TenantPolicy
from eul_serve.policy.trust_rules import read_trust

_HASH = re.compile(r"[0-9a-f]{64}")
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
_MOST = 10**12
"""Largest limit that a policy may set: far beyond any server, and exact in every reader of TOML."""


def load_policy(path: Path, tokens: Path | None = None) -> Policy:
    """Read and check a policy.

    Args:
        path: The policy, TOML; files that it names are looked for beside it.
        tokens: A further file that holds nothing but tokens, TOML; None where there is none.

    Returns:
        The policy.

    Raises:
        InputError: A file is missing or not TOML, or a key or value is not allowed; names it.
    """
    file = Section.read(path, "policy")
    file.allow("admins", "canaries", "derived_from", "jwt", "signers", "tenants", "trust")
    tenants: dict[str, TenantPolicy] = {}
    holders: dict[str, str] = {}
    for name, section in file.sections("tenants"):
        tenants[name] = _tenant(name, section)
        for digest in section.texts("token_sha256"):
            _hold(holders, digest, name, section)
    if tokens is not None:
        _add_tokens(holders, Section.read(tokens, "tokens"), tenants)
    admins = {name: _admin(name, section) for name, section in file.sections("admins")}
    _check_holders(tenants, holders, admins, file)
    policy = Policy(
        tenants=tenants,
        tokens=holders,
        derived_from=_derived(file.section("derived_from")),
        jwt=read_jwt(file.section("jwt")),
        admins=admins,
        canaries=read_canaries(file.section("canaries")),
        signers=read_signers(file, path.parent),
        trust=read_trust(file.section("trust")),
        epoch="",
    )
    return replace(policy, epoch=epoch_of(policy))


def _admin(name: str, section: Section) -> Admin:
    section.allow("certificates", "token_sha256")
    section.parsed("name", lambda text: check_name(text, "administrator"), name)
    tokens = section.texts("token_sha256")
    for digest in tokens:
        _check_hash(digest, section)
    return Admin(tokens=frozenset(tokens), certificates=frozenset(section.texts("certificates")))


def _check_holders(
    tenants: Mapping[str, TenantPolicy], tokens: Mapping[str, str], admins: Mapping[str, Admin], file: Section
) -> None:
    """Refuse a token or a certificate that two have: nobody is a tenant and an administrator by one secret."""
    held = {f"token {digest[:8]}...": f"tenant {name!r}" for digest, name in tokens.items()}
    pairs = [
        (f"tenant {one.name!r}", f"certificate {name[:100]!r}") for one in tenants.values() for name in one.certificates
    ]
    for name, admin in admins.items():
        pairs += [(f"administrator {name!r}", f"token {digest[:8]}...") for digest in admin.tokens]
        pairs += [(f"administrator {name!r}", f"certificate {one[:100]!r}") for one in admin.certificates]
    for holder, secret in sorted(pairs):
        if held.setdefault(secret, holder) != holder:
            raise InputError(f"{file.where}: {secret} is held by two, {held[secret]} and {holder}")


def _derived(section: Section) -> dict[str, str]:
    return {
        section.parsed(copy[:100], check_digest, copy): section.parsed(copy, check_digest, section.text(copy) or "")
        for copy in section.table
    }


def _tenant(name: str, section: Section) -> TenantPolicy:
    section.allow("base", "bundles", "certificates", "default", "rights", "token_sha256", *_LIMITS, "priority")
    section.parsed("name", lambda text: check_name(text, "tenant"), name)
    base = section.flag("base")
    bundles = tuple(section.parsed("bundles", _grant, text) for text in section.texts("bundles"))
    rights = frozenset(section.parsed("rights", _right, text) for text in section.texts("rights"))
    default = section.text("default")
    target = None if default is None else section.parsed("default", _adapter, default)
    tenant = TenantPolicy(
        name=name,
        default=target,
        bundles=bundles,
        base=base,
        rights=rights,
        certificates=frozenset(section.texts("certificates")),
        quota=_quota(section),
    )
    if not (target is None or (base if target is BASE else tenant.allows(target))):
        hint = "base = true" if target is BASE else f"bundles = [{default!r}]"
        raise InputError(f"{section.where}: default: {default!r} is not allowed to this tenant; add `{hint}`")
    return tenant


def _quota(section: Section) -> Quota:
    limits = {name: section.number(name, 1, _MOST) for name in _LIMITS}
    return Quota(**limits, priority=section.number("priority", *PRIORITIES) or PRIORITIES[0])


def _adapter(text: str) -> Reference | Base:
    return BASE if text == BASE.value else Reference.parse(text)


def _grant(text: str) -> Grant:
    if text == BASE.value:
        raise InputError("'base' is the base model, not a bundle; write `base = true` to allow it")
    return Grant.parse(text)


def _right(text: str) -> Right:
    if text not in RIGHTS:
        raise InputError(f"unknown right {text[:100]!r}; allowed are {', '.join(RIGHTS)}")
    return text


def _add_tokens(holders: dict[str, str], file: Section, tenants: Mapping[str, TenantPolicy]) -> None:
    file.allow("tokens")
    section = file.section("tokens")
    for digest in section.table:
        _check_hash(digest, section)
        name = section.text(digest) or ""
        if name not in tenants:
            raise InputError(f"{section.where}: tenant {name[:100]!r}: no such tenant in the policy; add it there")
        _hold(holders, digest, name, section)


def _hold(holders: dict[str, str], digest: str, name: str, section: Section) -> None:
    _check_hash(digest, section)
    if holders.setdefault(digest, name) != name:
        raise InputError(
            f"{section.where}: token {digest[:8]}...: held by two tenants, {holders[digest]!r} and {name!r}"
        )


def _check_hash(digest: str, section: Section) -> None:
    if not _HASH.fullmatch(digest):
        # Never show what was found: it may be the token itself, pasted by mistake.
        raise InputError(
            f"{section.where}: token: expected 64 hex digits, its sha256; `eul token` makes a token and its hash"
        )
