"""The requests in flight, each with the right it runs under, so that a right that goes takes its requests along."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from eul_serve.errors import BusyError, EngineError, EulError, IdentityError, RefusedError
from eul_serve.format import Reference
from eul_serve.identity import Caller
from eul_serve.policy import Policy, Right

REVOKED = "the right to this bundle was withdrawn while the request ran; ask the operator for the policy"
WITHDRAWN = "this bundle was withdrawn while the request ran; ask the operator which one to use"


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """One request in flight."""

    caller: Caller
    """Who runs it."""
    reference: Reference | None
    """The bundle that was asked for; None is the base model."""
    rights: frozenset[Right]
    """Rights that it uses."""
    task: asyncio.Task[object]
    """The task that runs it."""
    revision: str | None = None
    """The revision that it runs on, once it has one."""
    revoked: EulError | None = None
    """Why it was stopped."""

    def revoke(self, reason: EulError) -> None:
        """Stop the request; the caller gets the reason."""
        if self.revoked is None:
            self.revoked = reason
            self.task.cancel()

    def check(self, policy: Policy) -> None:
        """Return when a policy still grants everything that the request uses.

        Args:
            policy: The policy in force now.

        Raises:
            IdentityError: What identified the caller is not accepted any more, or names another tenant.
            RefusedError: The bundle, the base or a right was withdrawn.
        """
        for proof in self.caller.proofs:
            if proof.tenant_in(policy).name != self.caller.tenant.name:
                raise IdentityError("what identified this caller was given to another tenant while the request ran")
        tenant = policy.tenants[self.caller.tenant.name]
        allowed = tenant.base if self.reference is None else tenant.allows(self.reference)
        if not allowed:
            raise RefusedError(REVOKED)
        for right in self.rights:
            tenant.require(right)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLimits:
    """How many requests run at once."""

    total: int = 256
    """Requests of all tenants, 1 or more."""
    tenant: int = 128
    """Requests of one tenant, 1 or more; less than `total`, so that no tenant shuts the others out."""


class Leases:
    """All requests in flight."""

    def __init__(self, limits: LeaseLimits) -> None:
        self._limits = limits
        self._open: set[Lease] = set()
        self._counts: Counter[str] = Counter()
        self.closed = False
        """Whether new requests are refused, as the server drains."""

    def __len__(self) -> int:
        return len(self._open)

    def count(self, tenant: str) -> int:
        """Return how many requests of a tenant there are."""
        return self._counts[tenant]

    @contextmanager
    def hold(self, caller: Caller, reference: Reference | None, rights: frozenset[Right]) -> Iterator[Lease]:
        """Count a request of the current task for as long as the context lasts.

        Args:
            caller: Who runs it.
            reference: The bundle that was asked for; None is the base model.
            rights: Rights that it uses.

        Yields:
            The lease.

        Raises:
            BusyError: Too many requests are running.
            EngineError: The server drains.
            EulError: The lease was revoked; the reason that was given.
        """
        task = asyncio.current_task()
        assert task is not None, "leases are held by tasks"
        if self.closed:
            raise EngineError("this server drains and takes no new requests; ask another one, or later")
        self._check_room(caller)
        lease = Lease(caller=caller, reference=reference, rights=rights, task=task)
        self._open.add(lease)
        self._counts[caller.tenant.name] += 1
        try:
            yield lease
        except asyncio.CancelledError:
            # As asyncio.timeout does: a cancellation of ours becomes our error, any other one goes on.
            if lease.revoked is not None and task.uncancel() == 0:
                raise lease.revoked from None
            raise
        finally:
            self._open.discard(lease)
            self._counts[caller.tenant.name] -= 1
            if not self._counts[caller.tenant.name]:
                del self._counts[caller.tenant.name]

    def recheck(self, policy: Policy) -> None:
        """Stop every request that a new policy does not grant."""
        for lease in tuple(self._open):
            try:
                lease.check(policy)
            except (IdentityError, RefusedError) as error:
                lease.revoke(error)

    def stop(self, revision: str) -> int:
        """Stop every request that runs on a revision; return how many there are."""
        running = [lease for lease in self._open if lease.revision == revision]
        for lease in running:
            lease.revoke(RefusedError(WITHDRAWN))
        return len(running)

    def _check_room(self, caller: Caller) -> None:
        name, quota = caller.tenant.name, caller.tenant.quota
        own = self._counts[name]
        most = min(self._limits.tenant, quota.concurrent_requests or self._limits.tenant)
        for running, limit, whose in (
            (len(self._open), self._limits.total, "this server"),
            (own, most, f"tenant {name!r}"),
        ):
            if running >= limit:
                raise BusyError(
                    f"{running} requests of {whose} are running, the limit is {limit}; try again later",
                    "concurrent_requests",
                )
