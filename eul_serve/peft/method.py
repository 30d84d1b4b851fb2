"""The member EUL of PEFT's enum of methods."""

from __future__ import annotations

from peft.utils.peft_types import PeftType

from eul_serve.format.config import PEFT_TYPE


def add_method() -> PeftType:
    """Add the member EUL to PEFT's enum, for which PEFT has no public way; a second call finds it there.

    Returns:
        The member.
    """
    if PEFT_TYPE not in PeftType.__members__:
        member = str.__new__(PeftType, PEFT_TYPE)
        member._name_ = PEFT_TYPE
        member._value_ = PEFT_TYPE
        member.__objclass__ = PeftType
        member._sort_order_ = len(PeftType)
        PeftType._member_names_.append(PEFT_TYPE)
        PeftType._member_map_[PEFT_TYPE] = member
        PeftType._value2member_map_[PEFT_TYPE] = member
        type.__setattr__(PeftType, PEFT_TYPE, member)
    return PeftType(PEFT_TYPE)


EUL = add_method()
"""PEFT's member for this method."""
