"""BundleService: what the caller's policy names, and nothing else."""

from __future__ import annotations

import asyncio

from eul_serve.errors import BannedError, InputError, NotFoundError, RefusedError
from eul_serve.format import Reference
from eul_serve.policy import BASE, REFUSAL, TenantPolicy
from eul_serve.registry import Registry
from eul_serve.rpc import convert
from eul_serve.rpc.adapters import Adapters
from eul_serve.rpc.calls import Calls
from eul_serve.rpc.context import CallContext
from eul_serve.rpc.current import current_caller
from eul_serve.swap.feed import MAX_WATCHERS, Feed
from eul_serve.swap.policy_source import PolicySource
from eul_serve.swap.residency import Residency
from eul_serve.v1 import bundle_service_pb2 as pb
from eul_serve.v1 import bundle_service_pb2_grpc as services

MAX_TENANT_WATCHERS = MAX_WATCHERS - 8
"""Watchers at once with the tenants' own; the rest is for administrators."""


class BundleServicer(services.BundleServiceServicer):
    """Tells callers about their bundles."""

    def __init__(
        self, calls: Calls, registry: Registry, residency: Residency, policies: PolicySource, feed: Feed
    ) -> None:
        self._calls = calls
        self._registry = registry
        self._adapters = Adapters(registry)
        self._residency = residency
        self._policies = policies
        self._feed = feed

    async def ListBundles(self, request: pb.ListBundlesRequest, context: CallContext) -> pb.ListBundlesResponse:
        """List the caller's aliases."""
        return await self._calls.answer("ListBundles", context, self._list())

    async def WatchBundles(self, request: pb.WatchBundlesRequest, context: CallContext) -> None:
        """List the caller's aliases, now and whenever they change."""
        await self._calls.answer("WatchBundles", context, self._watch(context), endless=True)

    async def GetBundle(self, request: pb.GetBundleRequest, context: CallContext) -> pb.GetBundleResponse:
        """Describe one revision."""
        return await self._calls.answer("GetBundle", context, self._get(request))

    async def _list(self) -> pb.ListBundlesResponse:
        return pb.ListBundlesResponse(bundles=await self._aliases(current_caller().tenant))

    async def _watch(self, context: CallContext) -> None:
        """Write the list whenever it differs; ends with the right of the one who watches."""
        with self._feed.watching(MAX_TENANT_WATCHERS) as happenings:
            told = await self._tell(context, None)
            async for _ in happenings:
                told = await self._tell(context, told)

    async def _tell(self, context: CallContext, told: list[pb.BundleAlias] | None) -> list[pb.BundleAlias]:
        """Write the list where it differs from what was told, as the policy in force now has it."""
        policy = self._policies.current
        tenants = [proof.tenant_in(policy) for proof in current_caller().proofs]
        found = await self._aliases(tenants[0])
        if found != told:
            await context.write(pb.WatchBundlesResponse(bundles=found))
        return found

    async def _aliases(self, tenant: TenantPolicy) -> list[pb.BundleAlias]:
        references = await asyncio.to_thread(self._adapters.references, tenant)
        return [self._describe(one, tenant) for one in references]

    async def _get(self, request: pb.GetBundleRequest) -> pb.GetBundleResponse:
        target = current_caller().tenant.authorize(request.adapter)
        if target is BASE:
            raise InputError("adapter: the base model has no bundle; name one of `ListBundles`")
        entry = self._residency.pointed(target)
        try:
            revision = entry.revision if entry else await asyncio.to_thread(self._registry.resolve, target)
            manifest = await asyncio.to_thread(self._registry.manifest, target.name, revision)
            self._residency.check(target.name, revision)
        except (NotFoundError, BannedError) as error:
            raise RefusedError(REFUSAL) from error
        known = self._residency.entry(revision)
        return pb.GetBundleResponse(
            name=target.name,
            revision=revision,
            state=convert.state_of(known.state.stage if known else None),
            requests=sorted(manifest.request_ids),
            base_fingerprint=manifest.base.fingerprint,
            parents=manifest.parents,
        )

    def _describe(self, reference: Reference, tenant: TenantPolicy) -> pb.BundleAlias:
        entry = self._residency.pointed(reference)
        return pb.BundleAlias(
            name=reference.name,
            alias=reference.alias or "",
            revision=entry.revision if entry else reference.revision or "",
            state=convert.state_of(entry.state.stage if entry else None),
            default=reference == tenant.default,
        )
