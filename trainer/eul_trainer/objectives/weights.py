"""Checks of the weights of objectives."""

from __future__ import annotations

from eul_serve.errors import InputError


def check_above_zero(name: str, value: float) -> None:
    """Refuse a weight that is not above zero.

    Args:
        name: Name of the weight.
        value: Its value.

    Raises:
        InputError: It is zero or below.
    """
    if not value > 0:
        raise InputError(f"--weight {name}: expected a number above 0, found {value!r}; raise it")
