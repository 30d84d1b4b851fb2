"""The check of one option's value; apart from the settings themselves, so that a command's help needs no torch."""

from __future__ import annotations

from eul_serve.errors import InputError


def check(good: bool, option: str, value: object, allowed: str) -> None:
    """Refuse the value of an option.

    Args:
        good: Whether the value is acceptable.
        option: Name of the option.
        value: Its value.
        allowed: What is allowed, in words.

    Raises:
        InputError: `good` is false.
    """
    if not good:
        raise InputError(f"--{option}: expected {allowed}, found {value!r:.100}")
