"""Random acts of one client."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from eul_serve.format import Bundle, Reference
from eul_serve.registry.collect import Collector
from eul_serve.registry.orders import OrderAct
from eul_serve.registry.stored import StoredRegistry
from tests.eul_serve.registry.model.answers import Act
from tests.eul_serve.registry.model.judge import NAMES, SIGNATURE

ALIASES = ("stable", "next")
REQUESTS = ("r1", "r2", "r3")
CHANCES = {
    "publish": 30,
    "promote": 18,
    "rollback": 10,
    "collect": 15,
    "hold": 10,
    "release": 12,
    "ban": 3,
    "lift": 8,
    "delete": 2,
    "resolve": 4,
    "fetch": 2,
}
"""How often each act is drawn."""


def draw_act(chance: random.Random, registry: StoredRegistry, bundles: Sequence[Bundle], client: int, step: int) -> Act:
    """Return a random act.

    Args:
        chance: Draws all of it.
        registry: The client's registry.
        bundles: What may be published.
        client: The client's number.
        step: The number of the operation before which it begins.

    Returns:
        The act, not begun.
    """
    what = chance.choices(list(CHANCES), list(CHANCES.values()))[0]
    bundle, name, alias = chance.choice(bundles), chance.choice(NAMES), chance.choice(ALIASES)
    reason = chance.choice([None, "a test"])
    run: Callable[[], Any]
    signed = False
    if what == "publish":
        to = chance.choice([None, alias, alias])
        signed = chance.random() < 0.2
        signatures = [SIGNATURE] if signed else []
        run = partial(registry.publish, bundle, name, to, allow_unforget=reason, signatures=signatures)
        return Act(
            what=what, client=client, run=run, step=step, name=name, alias=to, revision=bundle.revision, signed=signed
        )
    if what == "promote":
        run = partial(registry.promote, name, bundle.revision, alias, allow_unforget=reason)
    elif what == "rollback":
        run = partial(registry.rollback, name, alias, allow_unforget=reason)
    elif what == "collect":
        run = Collector(registry, keep_days=chance.choice([0.0, 0.0, 0.0, 1.0])).collect
    elif what == "delete":
        run = partial(Collector(registry).delete_request, chance.choice(REQUESTS), "a test")
    elif what == "resolve":
        run = partial(registry.resolve, Reference(name, alias, None))
    elif what == "fetch":
        run = partial(_fetch, registry, name, bundle.revision)
    else:
        run = partial(registry.order, cast(OrderAct, what), bundle.revision, "a test")
    return Act(what=what, client=client, run=run, step=step, name=name, alias=alias, revision=bundle.revision)


def _fetch(registry: StoredRegistry, name: str, revision: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        registry.fetch(name, revision, Path(place) / "bundle")
