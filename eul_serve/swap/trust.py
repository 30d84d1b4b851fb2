"""Whether a revision may be taken up, by its manifest and signatures alone: asked before any file of it is fetched."""

from __future__ import annotations

from eul_serve.errors import InputError, RefusedError, UntrustedError
from eul_serve.format import Manifest
from eul_serve.policy import Policy, admit_bundle
from eul_serve.registry import Registry
from eul_serve.swap.orders import KnownOrders
from eul_serve.swap.policy_source import PolicySource

MAX_SIGNATURES = 16
"""Signatures of one revision that are looked at."""


class Trust:
    """Holds revisions of one registry against the signers of the policy in force, and against banned keys."""

    def __init__(self, registry: Registry, policies: PolicySource, orders: KnownOrders) -> None:
        self._registry = registry
        self._policies = policies
        self._orders = orders

    def state(self) -> object:
        """Return what `check` judges by; where it is equal to what it was, so is the judgement."""
        policy, standing = self._policies.current, self._orders.standing
        ended = tuple(rules.trusted.ended for rules in policy.signers.by_name.values())
        return policy.epoch, frozenset(standing.banned_signers if standing else ()), ended

    def check(self, name: str, revision: str) -> None:
        """Return where a revision may be taken up; blocks.

        Args:
            name: The name that it is published under.
            revision: `sha256:<hex>`.

        Raises:
            UntrustedError: Nobody whom the policy believes signed it, or with a banned key alone.
            NotFoundError: The registry has no such revision.
        """
        policy = self._policies.current
        if policy.trust.unsigned == "serve" and not policy.signers.by_name:
            return
        manifest = self._registry.manifest(name, revision)
        complaints = []
        for signature in self._registry.signatures(name, revision)[:MAX_SIGNATURES] or (None,):
            try:
                return self._check(policy, name, manifest, signature)
            except (RefusedError, InputError) as error:
                complaints.append(str(error))
        raise UntrustedError("; ".join(dict.fromkeys(complaints)))

    def _check(self, policy: Policy, name: str, manifest: Manifest, signature: bytes | None) -> None:
        signer = admit_bundle(policy, name, manifest, signature)
        standing = self._orders.standing
        if signer and standing and (order := standing.banned_signers.get(signer.fingerprint)):
            raise UntrustedError(
                f"bundle {name}@{manifest.revision}: signed with {signer.fingerprint}, a key that is banned since "
                f"{order.at}: {order.reason}; sign it with another"
            )
