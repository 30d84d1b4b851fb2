"""What serves an alias whose revision fails its canaries: the section `[canaries]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from eul_serve.policy.section import Section

OnFailure = Literal["refuse", "previous"]
ON_FAILURE: tuple[OnFailure, ...] = get_args(OnFailure)
"""Nothing at all, or an earlier revision that un-forgets nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRules:
    """What is done where canaries fail."""

    on_failure: OnFailure = "refuse"
    """`refuse`: requests for the alias are refused; `previous`: the newest earlier revision of the alias that covers
    every request of the one that failed, and passes its own canaries, serves instead."""


def read_canaries(section: Section) -> CanaryRules:
    """Read the section.

    Args:
        section: The table `canaries`, empty where there is none.

    Returns:
        The rules.

    Raises:
        InputError: A key is unknown, or a value is not acceptable; names it.
    """
    section.allow("on_failure")
    on_failure = section.choice("on_failure", ON_FAILURE)
    return CanaryRules() if on_failure is None else CanaryRules(on_failure=on_failure)
