"""What a server holds and does, as one message."""

from __future__ import annotations

from dataclasses import dataclass

from eul_serve.engine.base import Engine
from eul_serve.policy import Policy, TenantPolicy
from eul_serve.rpc import convert
from eul_serve.swap.entry import Entry
from eul_serve.swap.feed import Happening
from eul_serve.swap.leases import Leases
from eul_serve.swap.pins import Pins
from eul_serve.swap.policy_source import PolicySource
from eul_serve.swap.residency import Residency
from eul_serve.swap.revision import Stage
from eul_serve.traffic import Line
from eul_serve.v1 import admin_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Reads the parts of one server."""

    engine: Engine
    """The engine."""
    policies: PolicySource
    """The policy in force."""
    residency: Residency
    """The revisions."""
    leases: Leases
    """The requests in flight."""
    line: Line
    """The requests that wait."""
    pins: Pins
    """The slots that stay."""

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.policies.current

    def message(self) -> pb.GetStatusResponse:
        """Return all of it."""
        info = self.engine.info
        return pb.GetStatusResponse(
            base_fingerprint=info.fingerprint,
            policy_epoch=self.policy.epoch,
            draining=self.leases.closed,
            running=self.line.running,
            waiting=len(self.line),
            batch=info.batch,
            slots=info.slots,
            capacity=info.capacity,
            revisions=self.revisions(),
            tenants=[_tenant(tenant, self.leases.count(name)) for name, tenant in sorted(self.policy.tenants.items())],
        )

    def revisions(self) -> list[pb.RevisionStatus]:
        """Return every revision that the server knows."""
        return [self._revision(entry) for entry in self.residency.entries()]

    def _revision(self, entry: Entry) -> pb.RevisionStatus:
        failed = entry.state.stage is Stage.FAILED and entry.error is not None
        return pb.RevisionStatus(
            revision=entry.revision,
            name=entry.name,
            state=convert.state_of(entry.state.stage),
            references=sorted(entry.pointers),
            in_flight=entry.state.in_flight,
            error=" ".join(str(entry.error).split()) if failed else "",
            requests=sorted(entry.manifest.request_ids) if entry.manifest else [],
            pinned=entry.revision in self.pins,
        )


def _tenant(tenant: TenantPolicy, running: int) -> pb.TenantStatus:
    return pb.TenantStatus(
        name=tenant.name,
        default_adapter=tenant.default_adapter,
        bundles=sorted(str(grant) for grant in tenant.bundles),
        base=tenant.base,
        rights=sorted(tenant.rights),
        in_flight=running,
        priority=tenant.quota.priority,
    )


def step_message(happening: Happening) -> pb.WatchSwapsResponse:
    """Return the message of something that happened."""
    facts = happening.facts
    detail = next((str(facts[name]) for name in ("reason", "before", "epoch") if facts.get(name)), "")
    return pb.WatchSwapsResponse(
        at=happening.at,
        act=happening.act,
        revision=facts.get("revision", ""),
        state=convert.state_of(Stage(facts["stage"])) if "stage" in facts else None,
        reference=facts.get("reference", facts.get("name", "")),
        detail=detail,
    )
