"""EUL as a PEFT method; importing this package registers it, so `PeftModel.from_pretrained(model, DIR)` works.

config.py    EulConfig, whose saved JSON is the bundle's `adapter_config.json`
layer.py     EulLayer, the one home of the trainable unlearning layer
model.py     EulModel, which wraps the feed-forward modules of a base model
method.py    the member EUL of PEFT's enum
register.py  the entry in PEFT's tables
access.py    what the trainer asks of a model: its modules, its layers, its activations
load.py      a base model with a bundle on top, checked against each other
"""

from eul_serve.peft.access import FFN_MODULES, eul_layers, ffn_modules, layers_of, observe
from eul_serve.peft.config import EulConfig
from eul_serve.peft.layer import EulLayer, Observer
from eul_serve.peft.load import load
from eul_serve.peft.model import EulModel
from eul_serve.peft.register import register

register()

__all__ = [
    "FFN_MODULES",
    "EulConfig",
    "EulLayer",
    "EulModel",
    "Observer",
    "eul_layers",
    "ffn_modules",
    "layers_of",
    "load",
    "observe",
    "register",
]
