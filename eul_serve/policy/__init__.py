"""Who may use what, and whose bundles are served: tenants, rights, tokens, signers. Needs no torch, grpc or vllm."""

from eul_serve.policy.admission import admit_bundle
from eul_serve.policy.canary_rules import CanaryRules
from eul_serve.policy.jwt_rules import JwtRules
from eul_serve.policy.load import load_policy
from eul_serve.policy.policy import Admin, Policy, hash_token
from eul_serve.policy.quota import Quota
from eul_serve.policy.rights import RIGHTS, Right
from eul_serve.policy.signers import SignerRules, Signers
from eul_serve.policy.tenant import BASE, REFUSAL, Base, Grant, TenantPolicy
from eul_serve.policy.trust_rules import DEFAULT_UNSIGNED, TrustRules

__all__ = [
    "BASE",
    "DEFAULT_UNSIGNED",
    "REFUSAL",
    "RIGHTS",
    "Admin",
    "Base",
    "CanaryRules",
    "Grant",
    "JwtRules",
    "Policy",
    "Quota",
    "Right",
    "SignerRules",
    "Signers",
    "TenantPolicy",
    "TrustRules",
    "admit_bundle",
    "hash_token",
    "load_policy",
]
