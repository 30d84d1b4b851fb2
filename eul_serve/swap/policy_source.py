"""The policy file as the server follows it: read again at every poll, and kept where the new one is wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eul_serve.errors import EulError
from eul_serve.format import Reference
from eul_serve.identity import KeyRing
from eul_serve.metrics import Metrics
from eul_serve.policy import Policy, load_policy

_log = logging.getLogger("eul_serve.swap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one look at the files found; None where something stays as it is."""

    policy: Policy | None
    """The policy."""
    keys: Mapping[str, Any] | None
    """The keys of the issuer of signed tokens."""


class PolicySource:
    """The policy in force, and the keys that go with it."""

    def __init__(self, path: Path, tokens: Path | None, metrics: Metrics) -> None:
        self._path = path
        self._tokens = tokens
        self._metrics = metrics
        self._complaint = ""
        self.current = load_policy(path, tokens)
        """The policy in force."""
        self.ring = KeyRing()
        """Keys of the issuer of signed tokens."""
        self.ring.put(self.ring.read(self.current.jwt))

    def read(self, *, strict: bool = False) -> Reading:
        """Read the files again; blocks.

        Args:
            strict: Whether a policy that cannot be read is an error of whoever asks; else it is told once, and the one
                in force stays.

        Returns:
            What was found.

        Raises:
            InputError: The policy cannot be read, and somebody asked for it.
        """
        policy = load_policy(self._path, self._tokens) if strict else self._read_policy()
        return Reading(policy=policy, keys=self.ring.read((policy or self.current).jwt))

    def _read_policy(self) -> Policy | None:
        try:
            policy = load_policy(self._path, self._tokens)
        except EulError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._metrics.policy_loads.labels(outcome="refused").inc()
                _log.error("the policy in force stays, as the new one is refused: %s", error)
            return None
        self._complaint = ""
        return policy

    def put(self, reading: Reading) -> bool:
        """Put what was read in force; return whether anything differs from before."""
        changed = self.ring.put(reading.keys)
        if reading.policy is None or reading.policy.epoch == self.current.epoch:
            return changed
        self.current = reading.policy
        self._metrics.policy_loads.labels(outcome="loaded").inc()
        _log.info("policy %s is in force", self.current.epoch)
        return True


def wanted_references(policy: Policy) -> dict[str, Reference]:
    """Return what to follow for the tenants of a policy: their defaults and bundles; a bare name is its `stable`."""
    found: dict[str, Reference] = {}
    for tenant in policy.tenants.values():
        references = [Reference.parse(str(grant)) for grant in tenant.bundles]
        if isinstance(tenant.default, Reference):
            references.append(tenant.default)
        found.update((str(reference), reference) for reference in references)
    return found


def still_allowed(policy: Policy, reference: Reference) -> bool:
    """Return whether any tenant of a policy may use a reference."""
    return any(tenant.allows(reference) for tenant in policy.tenants.values())
