"""What a client may be told: an act that is acknowledged has come about, and an error has a cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eul_serve.errors import BundleFormatError, BusyError, EulError, NotFoundError, RefusedError
from tests.eul_serve.registry.model.memory_store import Died
from tests.eul_serve.registry.model.model import Model

COLLECTORS = ("collect", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act of one client."""

    what: str
    """Its name, such as `publish`."""
    client: int
    """Whose."""
    run: Callable[[], Any]
    """Does it."""
    step: int
    """When it began, in operations of all clients."""
    name: str = ""
    """Name of the bundle, where there is one."""
    alias: str | None = None
    """The alias, where there is one."""
    revision: str = ""
    """The revision, where there is one."""
    signed: bool = False
    """Whether it brings a signature."""

    def __str__(self) -> str:
        return f"client {self.client}: {self.what} {self.name}:{self.alias}@{self.revision[7:15]} of step {self.step}"


def check_error(model: Model, act: Act, error: BaseException, faults: int) -> None:
    """Tell the model of an error that nothing explains.

    Args:
        model: The model.
        act: What failed.
        error: With what.
        faults: How many faults the act was given.
    """
    if isinstance(error, Died | BusyError | RefusedError) or (faults and isinstance(error, EulError)):
        return
    if isinstance(error, NotFoundError | BundleFormatError) and (
        model.was_damage(act.step) or _may_be_missing(model, act)
    ):
        return
    model.problem(f"{act}: {type(error).__name__}: {error}")


def _may_be_missing(model: Model, act: Act) -> bool:
    if act.what in ("promote", "fetch"):
        return model.was_absent(act.name, act.revision, act.step)
    if act.what in ("rollback", "resolve"):
        key = act.name, act.alias or ""
        late = any(move.step >= act.step for move in model.moves.get(key, []))
        stack = model.stacks.get(key, [])
        return late or len(stack) < 2 or model.was_absent(act.name, stack[-2], act.step)
    return not model.made


def check_answer(model: Model, act: Act, result: Any) -> None:
    """Tell the model of an acknowledged act that has not come about."""
    checks = {"publish": _publish, "promote": _promote, "rollback": _rollback, "resolve": _resolve}
    checks |= dict.fromkeys(COLLECTORS, _collect) | dict.fromkeys(("hold", "release", "ban", "lift"), _order)
    if act.what in checks:
        checks[act.what](model, act, result)


def _publish(model: Model, act: Act, result: Any) -> None:
    spoiled = model.damaged.get((act.name, act.revision), -1)
    if (act.name, act.revision) not in model.revisions and spoiled < act.step:
        model.problem(f"{act}: acknowledged, and not listed")
    if 0 <= spoiled < act.step:
        model.problem(f"{act}: acknowledged, and damaged as before")
    if act.signed and spoiled < 0:
        model.signed.add((act.name, act.revision))
    if act.alias is not None:
        _moved(model, act, act.revision, result.moved)


def _promote(model: Model, act: Act, result: Any) -> None:
    _moved(model, act, act.revision, result)


def _rollback(model: Model, act: Act, result: Any) -> None:
    _moved(model, act, result, True)


def _moved(model: Model, act: Act, revision: str, moved: bool) -> None:
    key = act.name, act.alias or ""
    own = [move for move in model.moves.get(key, []) if move.client == act.client and move.step >= act.step]
    if [(move.act, move.revision) for move in own] != ([(act.what, revision)] if moved else []):
        model.problem(f"{act}: acknowledged as {'moved' if moved else 'there already'}, and made {own}")
    if revision not in model.pointed(*key, act.step):
        model.problem(f"{act}: acknowledged, and the alias never pointed to {revision}")


def _resolve(model: Model, act: Act, result: Any) -> None:
    if result not in model.pointed(act.name, act.alias or "", act.step):
        model.problem(f"{act}: {result} was never the alias's target meanwhile")


def _collect(model: Model, act: Act, result: Any) -> None:
    for one in result.removed:
        if (one.name, one.manifest.revision) in model.revisions:
            model.problem(f"{act}: {one.reference} was acknowledged as removed, and is listed")
        if act.what == "delete" and one.manifest.revision not in model.standing["delete"]:
            model.problem(f"{act}: {one.reference} was acknowledged as deleted, and may come back")


def _order(model: Model, act: Act, result: Any) -> None:
    own = [one for one in model.orders if one[0] == act.client and one[1] >= act.step]
    if len(own) != (1 if result else 0):
        model.problem(f"{act}: answered {result}, and made {own}")
