"""What is done with a bundle that nobody signed: the section `[trust]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from eul_serve.policy.section import Section

Unsigned = Literal["refuse", "serve"]
UNSIGNED: tuple[Unsigned, ...] = get_args(Unsigned)
"""Not served at all, or served as if signatures did not exist."""
DEFAULT_UNSIGNED: Unsigned = "refuse"
"""What a policy means that does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRules:
    """What is done where a signature is missing."""

    unsigned: Unsigned = DEFAULT_UNSIGNED
    """`refuse`: a bundle without a signature is not served; `serve`: it is. One whose signature does not hold never is,
    where the policy names signers."""


def read_trust(section: Section) -> TrustRules:
    """Read the section.

    Args:
        section: The table `trust`, empty where there is none.

    Returns:
        The rules.

    Raises:
        InputError: A key is unknown, or a value is not acceptable; names it.
    """
    section.allow("unsigned")
    unsigned = section.choice("unsigned", UNSIGNED)
    return TrustRules() if unsigned is None else TrustRules(unsigned=unsigned)
