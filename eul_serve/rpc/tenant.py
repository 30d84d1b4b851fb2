"""TenantService: what the policy says of the caller, and of nobody else."""

from __future__ import annotations

from eul_serve.rpc.calls import Calls
from eul_serve.rpc.context import CallContext
from eul_serve.rpc.current import current_caller
from eul_serve.swap.leases import LeaseLimits, Leases
from eul_serve.v1 import tenant_service_pb2 as pb
from eul_serve.v1 import tenant_service_pb2_grpc as services


class TenantServicer(services.TenantServiceServicer):
    """Tells callers about themselves."""

    def __init__(self, calls: Calls, leases: Leases, limits: LeaseLimits) -> None:
        self._calls = calls
        self._leases = leases
        self._limits = limits

    async def GetTenant(self, request: pb.GetTenantRequest, context: CallContext) -> pb.GetTenantResponse:
        """Describe the caller."""
        return await self._calls.answer("GetTenant", context, self._get())

    async def _get(self) -> pb.GetTenantResponse:
        tenant = current_caller().tenant
        quota, most = tenant.quota, self._limits.tenant
        return pb.GetTenantResponse(
            name=tenant.name,
            default_adapter=tenant.default_adapter,
            bundles=sorted(str(grant) for grant in tenant.bundles),
            base=tenant.base,
            rights=sorted(tenant.rights),
            requests_per_minute=quota.requests_per_minute or 0,
            tokens_per_minute=quota.tokens_per_minute or 0,
            concurrent_requests=min(most, quota.concurrent_requests or most),
            priority=quota.priority,
            in_flight=self._leases.count(tenant.name),
        )
