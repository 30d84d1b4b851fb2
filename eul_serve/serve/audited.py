"""What goes into the audit log: decisions, not the steps between them."""

from __future__ import annotations

import logging

from eul_serve.audit import AuditLog
from eul_serve.errors import CapacityError
from eul_serve.metrics import Metrics
from eul_serve.swap.feed import Happening

_log = logging.getLogger("eul_serve.audit")


class Auditor:
    """Writes down what happens."""

    def __init__(self, log: AuditLog, metrics: Metrics) -> None:
        self._file = log
        self._metrics = metrics

    def __call__(self, happening: Happening) -> None:
        """Write a decision down.

        Args:
            happening: What happens.

        Raises:
            CapacityError: It cannot be written, and an operator asked for it: then it is not done. What registry and
                policy ask for is done even so: a full disk must not keep a server from forgetting.
        """
        if happening.act == "stage" or (happening.act == "canary" and not happening.facts["failed"]):
            return  # a step, not a decision: the move that follows says how many canaries passed
        try:
            entry = self._file.record(happening.act, **happening.facts)
        except CapacityError as error:
            self._metrics.audit_failures.inc()
            if "by" in happening.facts:
                raise
            _log.error("%s is done and not written down: %s", happening.act, error)
        else:
            _log.info("audit %d %s %s", entry.number, entry.act, entry.digest)
