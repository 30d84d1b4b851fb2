"""The server's own metrics, `eul_*`; `docs/reference/metrics.md` lists them."""

from eul_serve.metrics.exposition import Exposition
from eul_serve.metrics.metrics import Metrics

__all__ = ["Exposition", "Metrics"]
