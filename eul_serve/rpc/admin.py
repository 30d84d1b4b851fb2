"""AdminService: what an operator sees and steers; every act is told to the audit log before it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from eul_serve.errors import InputError, NotFoundError
from eul_serve.format import Reference
from eul_serve.rpc.calls import Calls
from eul_serve.rpc.context import CallContext
from eul_serve.rpc.current import current_admin
from eul_serve.rpc.overview import Overview, step_message
from eul_serve.swap.feed import Feed
from eul_serve.swap.follower import Follower
from eul_serve.swap.leases import Leases
from eul_serve.swap.pins import Pins
from eul_serve.swap.policy_source import wanted_references
from eul_serve.v1 import admin_service_pb2 as pb
from eul_serve.v1 import admin_service_pb2_grpc as services

MAX_REASON = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What an operator can move."""

    follower: Follower
    """Follows registry and policy."""
    pins: Pins
    """Slots that stay."""
    leases: Leases
    """Requests in flight, and whether new ones are taken."""
    feed: Feed
    """Told of every act."""
    welcome: Callable[[bool], Awaitable[None]]
    """Tells probes whether requests are welcome."""


class AdminServicer(services.AdminServiceServicer):
    """Answers operators."""

    def __init__(self, calls: Calls, overview: Overview, steering: Steering) -> None:
        self._calls = calls
        self._overview = overview
        self._steering = steering

    async def GetStatus(self, request: pb.GetStatusRequest, context: CallContext) -> pb.GetStatusResponse:
        """Tell what the server holds and does."""
        return await self._calls.answer("GetStatus", context, self._status())

    async def WatchSwaps(self, request: pb.WatchSwapsRequest, context: CallContext) -> None:
        """Tell every step; runs until the caller leaves, whatever the server's longest time is."""
        await self._calls.answer("WatchSwaps", context, self._watch(context), endless=True)

    async def Activate(self, request: pb.ActivateRequest, context: CallContext) -> pb.ActivateResponse:
        """Look at an alias now."""
        return await self._calls.answer("Activate", context, self._activate(request))

    async def Pin(self, request: pb.PinRequest, context: CallContext) -> pb.PinResponse:
        """Let an alias keep a slot."""
        return await self._calls.answer("Pin", context, self._pin(request))

    async def Unpin(self, request: pb.UnpinRequest, context: CallContext) -> pb.UnpinResponse:
        """Let its slot go."""
        return await self._calls.answer("Unpin", context, self._unpin(request))

    async def Drain(self, request: pb.DrainRequest, context: CallContext) -> pb.DrainResponse:
        """Take no new requests."""
        return await self._calls.answer("Drain", context, self._drain(request))

    async def Resume(self, request: pb.ResumeRequest, context: CallContext) -> pb.ResumeResponse:
        """Take requests again."""
        return await self._calls.answer("Resume", context, self._resume())

    async def ReloadPolicy(self, request: pb.ReloadPolicyRequest, context: CallContext) -> pb.ReloadPolicyResponse:
        """Read the policy now."""
        return await self._calls.answer("ReloadPolicy", context, self._reload())

    async def _status(self) -> pb.GetStatusResponse:
        return self._overview.message()

    async def _watch(self, context: CallContext) -> None:
        with self._steering.feed.watching() as happenings:
            for one in self._overview.revisions():
                state = pb.WatchSwapsResponse(act="stage", revision=one.revision, state=one.state, reference=one.name)
                await context.write(state)
            async for happening in happenings:
                await context.write(step_message(happening))

    async def _activate(self, request: pb.ActivateRequest) -> pb.ActivateResponse:
        reference = self._named(request.reference)
        self._tell("activate", reference=str(reference))
        return pb.ActivateResponse(revision=await self._steering.follower.look(reference))

    async def _pin(self, request: pb.PinRequest) -> pb.PinResponse:
        reference = self._named(request.reference)
        self._tell("pin", reference=str(reference))
        return pb.PinResponse(revision=await self._steering.pins.pin(reference))

    async def _unpin(self, request: pb.UnpinRequest) -> pb.UnpinResponse:
        reference = self._named(request.reference)
        self._tell("unpin", reference=str(reference))
        await self._steering.pins.unpin(reference)
        return pb.UnpinResponse()

    async def _drain(self, request: pb.DrainRequest) -> pb.DrainResponse:
        if not 1 <= len(request.reason) <= MAX_REASON:
            raise InputError(f"reason: expected 1 to {MAX_REASON} characters, found {len(request.reason)}")
        self._tell("drain", reason=request.reason)
        self._steering.leases.closed = True
        await self._steering.welcome(False)
        return pb.DrainResponse(in_flight=len(self._steering.leases))

    async def _resume(self) -> pb.ResumeResponse:
        self._tell("resume")
        self._steering.leases.closed = False
        await self._steering.welcome(True)
        return pb.ResumeResponse()

    async def _reload(self) -> pb.ReloadPolicyResponse:
        self._tell("reload_policy")
        before = self._overview.policy.epoch
        await self._steering.follower.poll_policy(strict=True)
        epoch = self._overview.policy.epoch
        return pb.ReloadPolicyResponse(epoch=epoch, changed=epoch != before)

    def _named(self, text: str) -> Reference:
        """Return an alias that the policy names; an operator cannot bring in what no tenant may use."""
        reference = Reference.parse(text)
        if reference.alias is None:
            raise InputError(f"reference: expected `name` or `name:alias`, found {text[:100]!r}")
        if str(reference) not in wanted_references(self._overview.policy):
            raise NotFoundError(f"{reference}: no tenant of the policy names it; add it there first")
        return reference

    def _tell(self, act: str, **facts: str) -> None:
        """Tell of an act before it is done: what cannot be written down is not done."""
        self._steering.feed.tell(act, by=current_admin(), **facts)
