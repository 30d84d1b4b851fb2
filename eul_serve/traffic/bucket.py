"""A token bucket: a minute's worth at most, refilled evenly. Pure: the time is given."""

from __future__ import annotations


class Bucket:
    """What one tenant may still use of one thing."""

    def __init__(self, per_minute: int, now: float) -> None:
        """Start full.

        Args:
            per_minute: What a minute brings, and the most that is kept.
            now: Monotonic seconds.
        """
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def resize(self, per_minute: int, now: float) -> None:
        """Take up another size, as a new policy says; what is there stays, up to the new most."""
        self._refill(now)
        self.per_minute = per_minute
        self._level = min(self._level, float(per_minute))

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until an amount is there; 0 where it is.

        Args:
            amount: What is wanted, at most a minute's worth.
            now: Monotonic seconds.

        Returns:
            Seconds.
        """
        self._refill(now)
        return max(0.0, amount - self._level) * 60.0 / self.per_minute

    def take(self, amount: float) -> None:
        """Take an amount; a negative one is given back."""
        self._level = min(self._level - amount, float(self.per_minute))

    def _refill(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._level = min(self._level + passed * self.per_minute / 60.0, float(self.per_minute))
        self._at = now
