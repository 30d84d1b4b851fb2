"""Nothing un-forgets by accident: the one rule for every move of an alias."""

from __future__ import annotations

from typing import Protocol

from eul_serve.errors import InputError, RefusedError


class Covers(Protocol):
    """A revision, or what is remembered of one."""

    @property
    def revision(self) -> str:
        """The revision, `sha256:<hex>`."""
        ...

    @property
    def request_ids(self) -> frozenset[str]:
        """Ids of the requests that it covers."""
        ...


def dropped_requests(current: Covers, wanted: Covers) -> tuple[str, ...]:
    """Return the ids of the requests that `current` covers and `wanted` does not, sorted."""
    return tuple(sorted(current.request_ids - wanted.request_ids))


def check_unforget(where: str, current: Covers, wanted: Covers, reason: str | None) -> tuple[str, ...]:
    """Refuse a move that would bring back what a request deleted, unless a person says why it may.

    Args:
        where: The alias as `name:alias`, for the message.
        current: The revision that the alias points to.
        wanted: The revision that it is to point to.
        reason: Why a covered request may be dropped; None where nobody said.

    Returns:
        The ids of the requests that the move drops.

    Raises:
        RefusedError: A covered request would be dropped, and there is no reason.
    """
    dropped = dropped_requests(current, wanted)
    if dropped and reason is None:
        raise RefusedError(
            f"{where}: {wanted.revision} does not cover {_list(dropped)}, which {current.revision} covers; moving "
            "would bring forgotten data back. Fuse a bundle that covers every request, or pass --allow-unforget REASON"
        )
    return dropped


def check_reason(reason: str | None) -> None:
    """Refuse a reason that says nothing, with an InputError."""
    if reason is not None and not reason.strip():
        raise InputError("--allow-unforget: expected a reason in words, found none; say why, as it is recorded")


def _list(ids: tuple[str, ...], shown: int = 10) -> str:
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return f"request{'s' if len(ids) > 1 else ''} {', '.join(map(repr, ids[:shown]))}{more}"
