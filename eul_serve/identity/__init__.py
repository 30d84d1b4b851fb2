"""Who calls: bearer tokens, signed tokens (JWT), client certificates. Needs neither grpc nor vllm."""

from eul_serve.identity.caller import Caller, Credentials, Proof
from eul_serve.identity.decide import identify
from eul_serve.identity.keys import KeyRing

__all__ = ["Caller", "Credentials", "KeyRing", "Proof", "identify"]
