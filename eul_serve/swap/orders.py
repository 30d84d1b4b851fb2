"""What people have ordered of a registry's revisions, as a server last read it; kept over restarts.

A server that starts while its registry cannot be read obeys what it, or another one on this cache, read before. Where
nobody ever read it, nobody knows what is banned, and nothing is taken up. One file for each registry in the cache's
directory, `orders-<hex>.json`, replaced whole.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eul_serve.errors import EngineError, InputError
from eul_serve.format import check_digest
from eul_serve.format.digest import digest_bytes
from eul_serve.registry.orders import Order, Standing
from eul_serve.whole import replace_whole

_log = logging.getLogger("eul_serve.swap")
_ACTS = ("ban", "delete")


class KnownOrders:
    """The bans and deletions of one registry that a server obeys."""

    def __init__(self, folder: Path, registry: str) -> None:
        """Read what is remembered; a file that says nothing counts as none.

        Args:
            folder: The cache's directory.
            registry: URL of the registry.
        """
        self._path = folder / f"orders-{digest_bytes(registry.encode()).removeprefix('sha256:')[:16]}.json"
        self._registry = registry
        self.standing = _read(self._path, registry)
        """What stands; None where nobody knows."""
        self.read = False
        """Whether this process has read it from the registry."""

    def check(self, name: str, revision: str) -> None:
        """Return where a revision may be used.

        Args:
            name: A bundle that has it, for the message.
            revision: The revision.

        Raises:
            BannedError: A person has ordered that it may not.
            EngineError: Nobody knows what is ordered.
        """
        if self.standing is None:
            raise EngineError(
                f"bundle {revision}: not taken up before the registry's orders were read once, as it may be banned; "
                "try again"
            )
        self.standing.check_usable(name, revision)

    def act(self, revision: str) -> str:
        """Return by which act a revision may not be used, `ban` or `delete`; empty where it may."""
        order = self.standing.against(revision) if self.standing else None
        return order.act if order else ""

    def put(self, standing: Standing) -> None:
        """Obey what was read from now on, and remember it.

        A disk that is full does not keep a server from obeying: the log says so, and this process remembers.

        Args:
            standing: What stands.
        """
        changed = self.standing is None or _orders(standing) != _orders(self.standing)
        self.standing, self.read = standing, True
        if not changed:
            return
        text = json.dumps({"registry": self._registry, "orders": [asdict(one) for one in _orders(standing)]}, indent=1)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_whole(self._path, text + "\n")
        except OSError as error:
            _log.error("what is banned is not remembered over a restart: file %r: %s", str(self._path), error)


def _orders(standing: Standing) -> list[Order]:
    return [*standing.banned.values(), *standing.deleted.values()]


def _read(path: Path, registry: str) -> Standing | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("file %r: not read: %s; the orders are read from the registry", str(path), error)
        return None
    try:
        orders = [_order(one) for one in found["orders"]] if found["registry"] == registry else None
    except (TypeError, KeyError, AttributeError, InputError):
        orders = None
    if orders is None:
        _log.warning("file %r: found no orders; they are read from the registry", str(path))
        return None
    standing = Standing()
    for order in orders:
        standing = standing.after(order)
    return standing


def _order(entry: dict[str, Any]) -> Order:
    order = Order(**entry)
    check_digest(order.digest)
    words = (order.reason, order.at, order.actor or "")
    if order.act not in _ACTS or not all(isinstance(word, str) for word in words):
        raise InputError(f"order {order.act!r:.50}: expected one of {', '.join(_ACTS)}")
    return order
