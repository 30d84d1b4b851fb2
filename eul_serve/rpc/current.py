"""What belongs to the call that runs now: who makes it, and what is written down of it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from eul_serve.identity import Caller

CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
ADMIN: ContextVar[str | None] = ContextVar("admin", default=None)


@dataclass(slots=True)
class CallRecord:
    """What the log says of a call; never a prompt or an answer."""

    revision: str = ""
    """The revision that it ran on, or `base`; empty where it ran on none."""
    prompt_tokens: int = 0
    """Tokens read."""
    completion_tokens: int = 0
    """Tokens made."""


RECORD: ContextVar[CallRecord | None] = ContextVar("record", default=None)


def current_caller() -> Caller:
    """Return who makes the current call."""
    caller = CALLER.get()
    assert caller is not None, "every method but health has a caller"
    return caller


def current_admin() -> str:
    """Return the administrator who makes the current call."""
    admin = ADMIN.get()
    assert admin is not None, "every method of the administrators' port has one"
    return admin


def current_record() -> CallRecord:
    """Return what is written down of the current call; outside one, something that nobody reads."""
    return RECORD.get() or CallRecord()
