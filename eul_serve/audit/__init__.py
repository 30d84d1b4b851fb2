"""What a server decided, one line each, so that a change of the past is seen. Needs neither grpc nor vllm."""

from eul_serve.audit.chain import Entry, read_chain
from eul_serve.audit.log import AuditLog

__all__ = ["AuditLog", "Entry", "read_chain"]
