"""An alias's file: where it points and how it came there, as one small JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import get_args

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format import check_digest
from eul_serve.format.config import check_keys, parse_object
from eul_serve.registry.base import Act, AliasMove, AliasState

MAX_ALIAS_BYTES = 16 << 20
_MOVE_KEYS: dict[str, type] = {"act": str, "actor": str, "at": str, "reason": str, "revision": str}


def extend(state: AliasState | None, move: AliasMove) -> AliasState:
    """Return the state after one more move."""
    return AliasState(move.revision, (*(state.history if state else ()), move))


def earlier_target(history: Sequence[AliasMove]) -> str | None:
    """Return where a rollback leads: below the current target on the stack of targets.

    Publishing and promoting put a target on the stack, a rollback takes one off, so that two rollbacks go back by two.
    """
    stack: list[str] = []
    for move in history:
        if move.act == "rollback":
            del stack[-1:]
        else:
            stack.append(move.revision)
    return stack[-2] if len(stack) > 1 else None


def to_bytes(state: AliasState) -> bytes:
    """Return the bytes of an alias's file."""
    data = {"history": [asdict(move) for move in state.history], "revision": state.revision}
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"


def from_bytes(data: bytes, where: str) -> AliasState:
    """Parse an alias's file.

    Args:
        data: Its bytes.
        where: The alias as `name:alias`, for messages.

    Returns:
        The state.

    Raises:
        BundleFormatError: The bytes are not what `to_bytes` writes.
    """
    found = parse_object(data, where)
    check_keys(found, {"history": list, "revision": str}, where)
    history = tuple(_move(raw, where) for raw in found["history"])
    if not history or history[-1].revision != found["revision"]:
        raise BundleFormatError(f"{where}: the last move in its history does not lead to {found['revision']!r:.100}")
    return AliasState(found["revision"], history)


def _move(raw: object, where: str) -> AliasMove:
    if not isinstance(raw, dict):
        raise BundleFormatError(f"{where}: history: expected objects, found {type(raw).__name__}")
    words = {key: "" if raw.get(key, "") is None else raw.get(key, "") for key in ("actor", "reason")}
    check_keys({**raw, **words}, _MOVE_KEYS, where)
    if raw["act"] not in get_args(Act):
        raise BundleFormatError(f"{where}: act: expected one of {', '.join(get_args(Act))}, found {raw['act']!r:.50}")
    try:
        check_digest(raw["revision"])
    except InputError as error:
        raise BundleFormatError(f"{where}: {error}") from error
    return replace(AliasMove(**raw), actor=raw.get("actor"), reason=raw.get("reason"))
