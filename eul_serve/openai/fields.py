"""The fields of a JSON request, each taken once; what nobody takes is refused, never ignored.

OpenAI's clients send `null`, empty lists and defaults for what was not asked for; those count as not sent.
"""

from __future__ import annotations

from typing import Any, TypeVar

from eul_serve.errors import InputError

_T = TypeVar("_T")

NEUTRAL: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "prompt_logprobs": (False,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "top_logprobs": (0,),
}
"""Values that ask for nothing."""
OWN = ("cache_salt", "metadata", "prompt_cache_key", "safety_identifier", "user")
"""The caller's own marks, dropped unread. The salt of the cache is the server's, whatever a caller sends."""


class Fields:
    """A JSON object that is read field by field."""

    def __init__(self, data: object, where: str = "") -> None:
        """Take an object.

        Args:
            data: What JSON held.
            where: Its place in the request, with a dot behind; empty for the request itself.

        Raises:
            InputError: It is no object.
        """
        if not isinstance(data, dict):
            raise InputError(f"{where.rstrip('.') or 'request'}: expected a JSON object, found {_kind(data)}")
        self._left = {name: value for name, value in data.items() if not _says_nothing(name, value)}
        self._where = where

    def take(self, name: str) -> Any:  # noqa: ANN401  # JSON
        """Return a field as it is; None where it was not sent."""
        return self._left.pop(name, None)

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        return self._typed(name, str, "a text", default)

    def flag(self, name: str) -> bool:
        """Return whether something is on."""
        return self._typed(name, bool, "true or false", False)

    def whole(self, name: str, default: int | None = None) -> int | None:
        """Return a whole number."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, "a whole number", value)
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "a number", value)
        try:
            return float(value)
        except OverflowError as error:  # a whole number of hundreds of digits
            raise self.wrong(name, "a number of less size", value) from error

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; one text counts as a list of one."""
        value = self.take(name)
        listed = [value] if isinstance(value, str) else value or []
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise self.wrong(name, "a text or a list of texts", value)
        return tuple(listed)

    def wholes(self, name: str) -> tuple[int, ...]:
        """Return a list of whole numbers, 0 or more."""
        value = self.take(name)
        if not is_wholes(value or []):
            raise self.wrong(name, "a list of whole numbers, 0 or more,", value)
        return tuple(value or ())

    def part(self, name: str) -> Fields | None:
        """Return an object within; None where it was not sent."""
        value = self.take(name)
        return None if value is None else Fields(value, f"{self._where}{name}.")

    def end(self) -> None:
        """Return when every field that was sent has been taken.

        Raises:
            InputError: One has not.
        """
        for name in sorted(self._left):
            raise InputError(
                f"{self._where}{name[:64]}: not served here; leave it out (docs/reference/openai.md has what is)"
            )

    def wrong(self, name: str, expected: str, found: object) -> InputError:
        """Return the error of a field of the wrong kind; it does not repeat what was sent."""
        return InputError(f"{self._where}{name}: expected {expected}, found {_kind(found)}")

    def _typed(self, name: str, kind: type[_T], expected: str, default: _T) -> _T:
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise self.wrong(name, expected, value)
        return value


def is_wholes(value: object) -> bool:
    """Return whether something is a list of whole numbers, 0 or more."""
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _says_nothing(name: str, value: object) -> bool:
    if value is None or value in ([], {}) or name in OWN:
        return True
    # `0 == False` in Python; a completion's `logprobs: 0` asks for something, a chat's `logprobs: false` does not.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in NEUTRAL.get(name, ()))


def _kind(value: object) -> str:
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "nothing")
