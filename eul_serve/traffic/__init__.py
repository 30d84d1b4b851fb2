"""How tenants share one engine: quotas by the minute, and a fair line in front of it. Needs neither grpc nor vllm."""

from eul_serve.traffic.line import Line, LineLimits
from eul_serve.traffic.quotas import Charge, Quotas

__all__ = ["Charge", "Line", "LineLimits", "Quotas"]
