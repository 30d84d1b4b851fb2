"""The metrics themselves, and that the page lists all of them."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from eul_serve.errors import InputError
from eul_serve.metrics import Exposition, Metrics

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def families(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Names as a scrape has them, with their labels."""
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    return found


def test_the_page_lists_every_metric_and_no_other() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    listed = set(re.findall(r"^\| `(eul_[a-z_]+)", PAGE.read_text(), re.MULTILINE))
    assert listed == set(families(registry))


def test_no_metric_tells_who_asks_for_what() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.requests.labels(method="Generate", code="OK").inc()
    for labels in families(registry).values():
        assert not labels & {"tenant", "bundle", "revision", "adapter", "alias"}


def test_fast_tokens_can_be_told_apart() -> None:
    """vLLM's own buckets begin at 10 ms, which small models on a GPU never reach."""
    registry = CollectorRegistry()
    Metrics(registry).inter_token.observe(0.002)
    for bound, count in (("0.001", 0), ("0.0025", 1), ("0.005", 1)):
        assert registry.get_sample_value("eul_inter_token_latency_seconds_bucket", {"le": bound}) == count


def test_a_stage_that_fails_is_not_timed() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    with pytest.raises(ValueError, match="broken"), metrics.swap_stage("load"):
        raise ValueError("broken")
    with metrics.swap_stage("load"):
        pass
    assert registry.get_sample_value("eul_swap_duration_seconds_count", {"stage": "load"}) == 1


def test_the_port_answers_until_it_is_closed() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    with Exposition("127.0.0.1", 0, registry) as exposition:
        address = f"http://127.0.0.1:{exposition.port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as response:
            assert b"eul_build_info" in response.read()
        with pytest.raises(InputError, match="cannot listen"):
            Exposition("127.0.0.1", exposition.port, registry)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=10)
