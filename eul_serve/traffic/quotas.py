"""Requests and tokens by the minute, for each tenant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from eul_serve.errors import BusyError, CapacityError
from eul_serve.policy import TenantPolicy
from eul_serve.traffic.bucket import Bucket


@dataclass(slots=True)
class Charge:
    """What a running request has used of what was reserved for it."""

    reserved: int
    """Tokens that it may use at most."""
    used: int = 0
    """Tokens that it has used."""
    counts: bool = False
    """Whether it counts as a request: set once it is let in. One that the server turns away costs nothing."""


class Quotas:
    """Every tenant's buckets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    @contextmanager
    def charge(self, tenant: TenantPolicy, tokens: int) -> Iterator[Charge]:
        """Reserve a request and its tokens; what it did not use is given back when the context ends.

        Args:
            tenant: Who asks.
            tokens: Tokens that the request may read and make at most.

        Yields:
            The charge; whoever runs the request writes down what it uses.

        Raises:
            BusyError: The tenant has used up its minute.
            CapacityError: The request alone is more than a minute's worth.
        """
        wanted = {"requests_per_minute": 1, "tokens_per_minute": tokens}
        held = {name: (self._bucket(tenant, name), amount) for name, amount in wanted.items()}
        buckets = {name: (bucket, amount) for name, (bucket, amount) in held.items() if bucket is not None}
        for name, (bucket, amount) in buckets.items():
            self._check(tenant, name, bucket, amount)
        for bucket, amount in buckets.values():
            bucket.take(amount)
        charge = Charge(tokens)
        try:
            yield charge
        finally:
            spent = {"requests_per_minute": int(charge.counts), "tokens_per_minute": charge.used}
            for name, (bucket, amount) in buckets.items():
                bucket.take(spent[name] - amount)

    def _check(self, tenant: TenantPolicy, name: str, bucket: Bucket, amount: int) -> None:
        text = f"tenant {tenant.name!r} has {bucket.per_minute} {name.replace('_', ' ')}"
        if amount > bucket.per_minute:
            raise CapacityError(f"{text}, and this request alone may take {amount}; shorten it or lower max_tokens")
        if seconds := bucket.wait(amount, self._clock()):
            raise BusyError(f"{text}, and they are used up; try again in {seconds:.1f} s", name, seconds)

    def _bucket(self, tenant: TenantPolicy, name: str) -> Bucket | None:
        """Return a bucket as the tenant's policy says now; None where it sets no limit."""
        key, per_minute = (tenant.name, name), getattr(tenant.quota, name)
        if per_minute is None:
            self._buckets.pop(key, None)
            return None
        bucket = self._buckets.setdefault(key, Bucket(per_minute, self._clock()))
        if bucket.per_minute != per_minute:
            bucket.resize(per_minute, self._clock())
        return bucket
