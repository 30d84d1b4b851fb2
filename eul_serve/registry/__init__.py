"""The registry: published bundles by name, revision and alias. Imports neither torch, grpc nor vllm."""

from eul_serve.registry.base import RESERVED_NAMES, AliasMove, AliasState, Published, Registry
from eul_serve.registry.cache import Cache
from eul_serve.registry.open import open_registry
from eul_serve.registry.unforget import dropped_requests

__all__ = [
    "RESERVED_NAMES",
    "AliasMove",
    "AliasState",
    "Cache",
    "Published",
    "Registry",
    "dropped_requests",
    "open_registry",
]
