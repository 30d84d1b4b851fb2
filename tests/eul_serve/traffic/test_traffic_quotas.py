"""Requests and tokens by the minute, by a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import BusyError, CapacityError
from eul_serve.policy import Quota, TenantPolicy
from eul_serve.traffic import Quotas
from eul_serve.traffic.bucket import Bucket


class Clock:
    """Monotonic seconds that stand still unless moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tenant(**quota: Any) -> TenantPolicy:
    return TenantPolicy(name="acme", quota=Quota(**quota))


def use(quotas: Quotas, who: TenantPolicy, reserved: int, used: int) -> None:
    with quotas.charge(who, reserved) as charge:
        charge.counts, charge.used = True, used


def test_a_minute_of_requests_and_no_more() -> None:
    clock = Clock()
    quotas, who = Quotas(clock), tenant(requests_per_minute=3)
    for _ in range(3):
        use(quotas, who, 10, 10)
    with pytest.raises(BusyError, match="3 requests per minute") as error:
        use(quotas, who, 10, 10)
    assert (error.value.limit, error.value.retry_seconds) == ("requests_per_minute", pytest.approx(20.0))
    clock.now += 20.0  # a third of a minute brings one of three
    use(quotas, who, 10, 10)
    with pytest.raises(BusyError):
        use(quotas, who, 10, 10)


def test_tokens_that_were_not_used_come_back() -> None:
    quotas, who = Quotas(Clock()), tenant(tokens_per_minute=100)
    for _ in range(6):
        use(quotas, who, 50, 10)  # the sixth finds 50, and leaves 40
    with pytest.raises(BusyError, match="tokens per minute") as error:
        use(quotas, who, 50, 10)
    assert error.value.retry_seconds == pytest.approx(6.0)  # 10 tokens of 100 a minute


def test_what_is_reserved_is_not_there_for_another() -> None:
    quotas, who = Quotas(Clock()), tenant(tokens_per_minute=100)
    with quotas.charge(who, 60), pytest.raises(BusyError):
        use(quotas, who, 60, 60)
    use(quotas, who, 60, 60)


def test_a_request_that_was_turned_away_costs_nothing() -> None:
    quotas, who = Quotas(Clock()), tenant(requests_per_minute=1, tokens_per_minute=50)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), quotas.charge(who, 50):
            raise ZeroDivisionError
    use(quotas, who, 50, 50)


def test_a_request_larger_than_a_minute_is_told_so() -> None:
    with pytest.raises(CapacityError, match="this request alone may take 101") as error:
        use(Quotas(Clock()), tenant(tokens_per_minute=100), 101, 0)
    assert not isinstance(error.value, BusyError)  # waiting would not help


def test_tenants_do_not_share() -> None:
    quotas = Quotas(Clock())
    use(quotas, tenant(requests_per_minute=1), 1, 1)
    use(quotas, TenantPolicy(name="zeta", quota=Quota(requests_per_minute=1)), 1, 1)


def test_a_new_policy_changes_the_size_and_forgives_nothing() -> None:
    quotas = Quotas(Clock())
    use(quotas, tenant(requests_per_minute=2), 1, 1)
    use(quotas, tenant(requests_per_minute=5), 1, 1)  # one of the first two was left
    with pytest.raises(BusyError):
        use(quotas, tenant(requests_per_minute=5), 1, 1)


def test_without_a_limit_nothing_is_counted() -> None:
    quotas = Quotas(Clock())
    for _ in range(1000):
        use(quotas, tenant(), 10**9, 10**9)


@given(
    st.integers(1, 600),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 600)), max_size=60),
)
def test_no_window_gives_more_than_a_minute_and_what_it_kept(per_minute: int, steps: list[tuple[float, int]]) -> None:
    bucket, now, taken = Bucket(per_minute, 0.0), 0.0, 0
    for pause, amount in steps:
        now += pause
        if amount <= per_minute and bucket.wait(amount, now) == 0:
            bucket.take(amount)
            taken += amount
        # Full at the start, then what the time brings: the bound of every token bucket.
        assert taken <= per_minute + now * per_minute / 60 + 1e-6


@given(st.integers(1, 600), st.integers(1, 600), st.floats(0, 100))
def test_the_wait_is_exact(per_minute: int, amount: int, at: float) -> None:
    amount = min(amount, per_minute)
    bucket = Bucket(per_minute, at)
    bucket.take(per_minute)
    seconds = bucket.wait(amount, at)
    assert seconds == pytest.approx(amount * 60 / per_minute)
    assert bucket.wait(amount, at + seconds * 0.99) > 0
    assert bucket.wait(amount, at + seconds * 1.000001 + 1e-6) < 1e-3
