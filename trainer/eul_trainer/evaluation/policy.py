"""The policy file: what a bundle must show, as rules with two sides. `policy.toml` beside this file is the default."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_bytes

DEFAULT = Path(__file__).with_name("policy.toml")
VERSION = 1
KINDS = ("forget", "retain", "unseen")
BESIDES = ("", "base", "twin", "unseen")
_TEXTS = ("name", "on", "measure", "beside", "below", "above")
_NUMBERS = ("low", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule."""

    name: str
    """What people call it."""
    on: str
    """Kind of the sets that it is judged on, one of KINDS."""
    measure: str
    """A mean of a set, such as `loss`, or a comparison and one of its numbers, such as `membership_loss.value`."""
    beside: str = ""
    """What is subtracted, one of BESIDES; nothing where it is empty."""
    low: float = -math.inf
    """Least value that passes, in the measure's unit."""
    high: float = math.inf
    """Largest value that passes."""
    below: str = "too low"
    """What a smaller value means."""
    above: str = "too high"
    """What a larger value means."""
    needed: bool = True
    """Whether a measure without a value fails the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Rules, and the digest of the file that they came from."""

    rules: tuple[Rule, ...]
    """The rules, at least one."""
    digest: str
    """Digest of the file."""


def read_policy(path: Path = DEFAULT) -> Policy:
    """Read a policy file.

    Args:
        path: The file, TOML.

    Returns:
        The policy.

    Raises:
        InputError: It cannot be read, or is not what it should be.
    """
    try:
        data = path.read_bytes()
        found = tomllib.loads(data.decode())
    except OSError as error:
        raise InputError(f"--policy {str(path)!r}: cannot read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--policy {str(path)!r}: expected TOML, found {error}") from error
    where = f"--policy {str(path)!r}"
    if found.get("version") != VERSION:
        raise InputError(f"{where}: version: expected {VERSION}, found {found.get('version')!r}")
    rules = found.get("rule")
    if not isinstance(rules, list) or not rules or set(found) != {"version", "rule"}:
        raise InputError(f"{where}: expected `version` and at least one `[[rule]]`, and nothing else")
    return Policy(
        rules=tuple(_rule(f"{where}, rule {number}", rule) for number, rule in enumerate(rules, 1)),
        digest=digest_bytes(data),
    )


def _rule(where: str, found: Mapping[str, Any]) -> Rule:
    _check_keys(where, found)
    rule = Rule(**found)
    for name, value, allowed in (("on", rule.on, KINDS), ("beside", rule.beside, BESIDES)):
        if value not in allowed:
            raise InputError(f"{where}: {name}: expected one of {', '.join(filter(None, allowed))}, found {value!r}")
    if not rule.low <= rule.high or (math.isinf(rule.low) and math.isinf(rule.high)):
        raise InputError(f"{where}: expected low, high or both, and low at most high; found {rule.low} and {rule.high}")
    return rule


def _check_keys(where: str, found: Mapping[str, Any]) -> None:
    """Refuse keys that are unknown or missing, and values of another type."""
    if unknown := set(found) - {*_TEXTS, *_NUMBERS, "needed"}:
        raise InputError(f"{where}: unknown keys {', '.join(sorted(unknown))}; see the default policy")
    if missing := {"name", "on", "measure"} - set(found):
        raise InputError(f"{where}: missing {', '.join(sorted(missing))}")
    for name, value in found.items():
        expected = "text" if name in _TEXTS else "a number" if name in _NUMBERS else "true or false"
        if not _is(expected, value):
            raise InputError(f"{where}: {name}: expected {expected}, found {value!r}")


def _is(expected: str, value: object) -> bool:
    if expected == "a number":
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return isinstance(value, str if expected == "text" else bool)
