"""Who may use what: tenants, bundles, rights, tokens. Denies by default; needs neither torch, grpc nor vllm."""

from eul_serve.policy.canary_rules import CanaryRules
from eul_serve.policy.jwt_rules import JwtRules
from eul_serve.policy.load import load_policy
from eul_serve.policy.policy import Admin, Policy, hash_token
from eul_serve.policy.quota import Quota
from eul_serve.policy.rights import RIGHTS, Right
from eul_serve.policy.tenant import BASE, REFUSAL, Base, Grant, TenantPolicy

__all__ = [
    "BASE",
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
    "TenantPolicy",
    "hash_token",
    "load_policy",
]
