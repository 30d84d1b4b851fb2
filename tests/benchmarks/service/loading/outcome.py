"""What came of a request, and what many of them come to."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PROBE = -1
"""Number of a probe, which is no part of the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request. All times are monotonic seconds, which all processes of a machine share."""

    number: int
    """Its number in the plan; PROBE for a probe."""
    tenant: str
    """Whose it was."""
    asked: int
    """Most tokens that were asked for."""
    intended: float
    """When it was to be sent."""
    sent: float
    """When it was."""
    admitted: float
    """When the first message came, which names the revision; 0 where none came."""
    times: tuple[float, ...]
    """When each piece with tokens came."""
    tokens: int
    """Tokens of the answer."""
    revision: str
    """The revision that the answer named; several, with spaces, where its pieces differed."""
    token_ids: tuple[int, ...]
    """The answer's tokens, where they were told."""
    text: str
    """The answer's text."""
    error: str
    """Why it failed; empty where it was answered."""

    @property
    def first(self) -> float:
        """Seconds from when it was to be sent to its first token."""
        return self.times[0] - self.intended

    @property
    def gaps(self) -> list[float]:
        """Seconds between two pieces, as whoever reads them sees it: one piece can hold several tokens."""
        return [after - before for before, after in itertools.pairwise(self.times)]

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Outcome:
        """Read the line."""
        found = json.loads(line)
        return cls(**{**found, "times": tuple(found["times"]), "token_ids": tuple(found["token_ids"])})


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that so many percent do not exceed (nearest rank); NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return what one round of load comes to.

    Args:
        outcomes: All its requests.

    Returns:
        Answered tokens a second, from the first request's intended time to the last token; latencies in milliseconds;
        and how many were answered and failed.
    """
    answered = [one for one in outcomes if not one.error and one.times]
    first = [1000 * one.first for one in answered]
    between = [1000 * gap for one in answered for gap in one.gaps]
    begin = min((one.intended for one in outcomes), default=math.nan)
    end = max((one.times[-1] for one in answered), default=math.nan)
    found: dict[str, Any] = {
        "tokens_per_second": sum(one.tokens for one in answered) / (end - begin),
        "answered": len(answered),
        "failed": len(outcomes) - len(answered),
    }
    for name, values in (("first_token_ms", first), ("between_tokens_ms", between)):
        found[f"{name}_p50"], found[f"{name}_p99"] = percentile(values, 50), percentile(values, 99)
    return found
