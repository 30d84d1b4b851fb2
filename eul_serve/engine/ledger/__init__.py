"""The ledger of what we rely on inside vLLM, as data, and the check that the installed vLLM still has it.

`compat` is the only file that imports vLLM; this is what it, and the classes made of what it imports, take for granted.
Nothing of vLLM is imported before a check is asked for. `docs/reference/vllm.md` is made from the same data.
"""

from eul_serve.engine.ledger.check import Moved, find_moved, require
from eul_serve.engine.ledger.front import FRONT
from eul_serve.engine.ledger.layers import LAYERS
from eul_serve.engine.ledger.model_manager import MODEL_MANAGER
from eul_serve.engine.ledger.point import VERSIONS, HookPoint
from eul_serve.engine.ledger.settings import SETTINGS
from eul_serve.engine.ledger.worker_manager import WORKER_MANAGER

ADAPTERS = WORKER_MANAGER + MODEL_MANAGER + LAYERS + SETTINGS
"""What every process with the plugin relies on."""
LEDGER = ADAPTERS + FRONT
"""Every hook point; `FRONT` matters to `eul serve` alone."""

__all__ = [
    "ADAPTERS",
    "FRONT",
    "LAYERS",
    "LEDGER",
    "MODEL_MANAGER",
    "SETTINGS",
    "VERSIONS",
    "WORKER_MANAGER",
    "HookPoint",
    "Moved",
    "find_moved",
    "require",
]
