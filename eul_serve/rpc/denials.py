"""What was turned away: counted for all, and the last ones kept for administrators to look at."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from eul_serve.errors import CapacityError, EulError, IdentityError, RefusedError
from eul_serve.metrics import Metrics
from eul_serve.moment import utc_now

KEPT = 50
"""How many are kept."""
_REASONS: dict[type[EulError], str] = {IdentityError: "identity", RefusedError: "refused", CapacityError: "limit"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One call that was turned away."""

    method: str
    """Which method it asked for."""
    reason: str
    """identity, refused or limit."""
    tenant: str
    """Whose it was; empty where nobody is known."""
    at: str = field(default_factory=utc_now)
    """When, UTC, ISO 8601."""


class Denials:
    """Lives on one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._kept: deque[Denial] = deque(maxlen=KEPT)

    def recent(self) -> list[Denial]:
        """Return the last ones, the newest first."""
        return list(reversed(self._kept))

    def count(self, error: BaseException, method: str, tenant: str = "") -> None:
        """Count an error where it turned a call away.

        Args:
            error: How the call ended.
            method: Which method it asked for.
            tenant: Whose it was; empty where nobody is known.
        """
        reason = next((word for kind, word in _REASONS.items() if isinstance(error, kind)), None)
        if reason is not None:
            self._metrics.denials.labels(reason=reason).inc()
            self._kept.append(Denial(method=method[:64], reason=reason, tenant=tenant))
