"""The entry in PEFT's tables."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from eul_serve.errors import InputError
from eul_serve.peft.config import EulConfig
from eul_serve.peft.method import EUL
from eul_serve.peft.model import EulModel


def register() -> None:
    """Make PEFT know the method EUL; a second call does nothing.

    Raises:
        InputError: Another package registered a method of that name.
    """
    known = PEFT_TYPE_TO_TUNER_MAPPING.get(EUL)
    if known is None:
        register_peft_method(name="eul", config_cls=EulConfig, model_cls=EulModel)
    elif known is not EulModel:
        raise InputError(f"PEFT method EUL: already registered by {known.__module__}; uninstall one of the two")
