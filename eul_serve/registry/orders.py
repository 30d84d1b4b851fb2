"""What people have ordered of revisions and signers: hold, ban, delete; one chain for a whole registry.

A server that polls asks for the next order alone, so a ban costs every server one small request until there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from eul_serve.audit.chain import Entry
from eul_serve.errors import BannedError, BundleFormatError, InputError
from eul_serve.format import check_digest
from eul_serve.registry.chain import Chain
from eul_serve.registry.log import ActLog
from eul_serve.registry.store import Store

OrderAct = Literal["hold", "release", "ban", "lift", "ban_signer", "lift_signer", "delete"]
_ENDS = {"release": "hold", "lift": "ban", "lift_signer": "ban_signer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order."""

    act: OrderAct
    """What is ordered."""
    digest: str
    """Of what: a revision, or the fingerprint of a signer's key; `sha256:<hex>`."""
    reason: str
    """Why."""
    actor: str | None
    """Who ordered it, where known."""
    at: str
    """When, UTC in ISO 8601, to the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The orders that stand, each by what it is about."""

    held: dict[str, Order] = field(default_factory=dict)
    """Revisions that no collection removes."""
    banned: dict[str, Order] = field(default_factory=dict)
    """Revisions that nobody may serve, move an alias to, or publish."""
    banned_signers: dict[str, Order] = field(default_factory=dict)
    """Keys whose signatures nobody may believe."""
    deleted: dict[str, Order] = field(default_factory=dict)
    """Revisions that were deleted for good, and may not come back."""

    def after(self, order: Order) -> Standing:
        """Return what stands after one more order."""
        room = _ROOMS[_ENDS.get(order.act, order.act)]
        kept = {digest: one for digest, one in getattr(self, room).items() if digest != order.digest}
        return replace(self, **{room: kept if order.act in _ENDS else {**kept, order.digest: order}})

    def against(self, revision: str) -> Order | None:
        """Return the order by which nobody may use a revision, a deletion before a ban; None where there is none."""
        return self.deleted.get(revision) or self.banned.get(revision)

    def check_usable(self, where: str, revision: str) -> None:
        """Refuse a revision that is banned or was deleted.

        Args:
            where: What it is, for the message.
            revision: The revision.

        Raises:
            BannedError: It may not be used.
        """
        order = self.against(revision)
        if order is None:
            return
        if order.act == "delete":
            raise BannedError(
                f"{where}: {revision} was deleted on {order.at}, and may not come back: {order.reason}; train anew"
            )
        raise BannedError(
            f"{where}: {revision} is banned since {order.at}: {order.reason}; use another revision, or "
            "`eul ban --lift` it"
        )


_ROOMS = {"hold": "held", "ban": "banned", "ban_signer": "banned_signers", "delete": "deleted"}


class Orders:
    """The orders of one registry; safe for several threads."""

    def __init__(self, store: Store, log: ActLog) -> None:
        self._chain = Chain(store, "orders", "orders")
        self._log = log
        self._known: tuple[int, Standing] = (0, Standing())

    def standing(self) -> Standing:
        """Return what stands now; BundleFormatError where an order was changed."""
        return self._standing(self._chain.entries())

    def given(self) -> tuple[Order, ...]:
        """Return all orders, oldest first; BundleFormatError where one was changed."""
        return tuple(map(_order, self._chain.entries()))

    def give(self, act: OrderAct, digest: str, reason: str, actor: str | None) -> bool:
        """Order something.

        Args:
            act: What.
            digest: Of what, `sha256:<hex>`.
            reason: Why; recorded.
            actor: Who; recorded.

        Returns:
            Whether it changed what stands.

        Raises:
            InputError: There is no reason, or the digest is none.
        """
        check_digest(digest)
        if not reason.strip():
            raise InputError("--reason: expected a reason in words, found none; say why, as it is recorded")
        facts = {"actor": actor, "digest": digest, "reason": reason}
        while True:
            entries = self._chain.entries()
            if (digest in getattr(self._standing(entries), _ROOMS[_ENDS.get(act, act)])) == (act not in _ENDS):
                return False
            self._log.append(act, **facts)
            if self._chain.append(act, facts, after=entries[-1] if entries else None):
                return True

    def _standing(self, entries: tuple[Entry, ...]) -> Standing:
        count, standing = self._known
        for order in map(_order, entries[count:]):
            standing = standing.after(order)
        self._known = len(entries), standing
        return standing


def _order(entry: Entry) -> Order:
    facts = entry.facts
    texts = [entry.at, facts.get("digest"), facts.get("reason")]
    if entry.act not in get_args(OrderAct) or not all(isinstance(text, str) for text in texts):
        raise BundleFormatError(f"orders: entry {entry.number}: {entry.act!r:.50} is no order; use a newer eul")
    return Order(
        act=entry.act,  # type: ignore[arg-type]  # checked above
        digest=facts["digest"],
        reason=facts["reason"],
        actor=facts.get("actor"),
        at=entry.at,
    )
