"""The epoch of a policy: a digest of its rules in one fixed form, whatever way they are written."""

from __future__ import annotations

import json
from dataclasses import asdict

from eul_serve.format.digest import digest_bytes
from eul_serve.policy.canary_rules import CanaryRules
from eul_serve.policy.policy import Policy
from eul_serve.policy.quota import Quota
from eul_serve.policy.signers import SignerRules
from eul_serve.policy.tenant import TenantPolicy
from eul_serve.policy.trust_rules import TrustRules


def epoch_of(policy: Policy) -> str:
    """Return the digest of a policy's rules; what was added to policies later counts only where it is used.

    Args:
        policy: The policy; its own epoch does not count.

    Returns:
        `sha256:<hex>`.
    """
    content: dict[str, object] = {
        "tenants": {tenant.name: _tenant(tenant) for tenant in policy.tenants.values()},
        "tokens": dict(policy.tokens),
    }
    if policy.derived_from:
        content["derived_from"] = dict(policy.derived_from)
    if policy.jwt is not None:
        content["jwt"] = asdict(policy.jwt)
    if policy.admins:
        content["admins"] = {
            name: {"certificates": sorted(admin.certificates), "tokens": sorted(admin.tokens)}
            for name, admin in policy.admins.items()
        }
    if policy.canaries != CanaryRules():
        content["canaries"] = asdict(policy.canaries)
    if policy.signers.by_name:
        content["signers"] = {name: _signer(rules) for name, rules in policy.signers.by_name.items()}
    if policy.trust != TrustRules():
        content["trust"] = asdict(policy.trust)
    return digest_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _tenant(tenant: TenantPolicy) -> dict[str, object]:
    later: dict[str, object] = {} if tenant.quota == Quota() else {"quota": asdict(tenant.quota)}
    if tenant.certificates:
        later["certificates"] = sorted(tenant.certificates)
    return {
        "base": tenant.base,
        "bundles": sorted({str(grant) for grant in tenant.bundles}),
        "default": tenant.default_adapter or None,
        "rights": sorted(tenant.rights),
        **later,
    }


def _signer(rules: SignerRules) -> dict[str, object]:
    """Return a signer's rules; its files count by their bytes, so that another key is another epoch."""
    trusted = rules.trusted
    return {
        "bundles": sorted(set(rules.bundles)),
        "certificates": digest_bytes(trusted.certificates),
        "identity": trusted.identity,
        "not_after": trusted.not_after.isoformat() if trusted.not_after else None,
        "public_key": digest_bytes(trusted.public_key),
    }
