"""Every metric of the server in one place.

Labels come from closed sets. No histogram has a tenant, bundle or revision: their number grows without bound, and
whoever reads `/metrics` would learn who uses what.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from platform import python_version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from eul_serve import __version__

FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5)
REQUEST_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SWAP_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

DENIALS = ("identity", "refused", "limit")
"""Why a call is turned away."""
FAILURES = (
    "unforget",
    "canary",
    "banned",
    "untrusted",
    "corrupt",
    "other_base",
    "missing",
    "no_room",
    "engine",
    "unreadable",
    "other",
)
"""Why a revision or a move is not taken up."""


class Metrics:
    """The `eul_*` metrics on one Prometheus registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "eul_requests", "Finished calls by method and gRPC code.", ("method", "code"), registry=registry
        )
        self.in_flight = Gauge("eul_in_flight_requests", "Calls that run now.", registry=registry)
        self.waiting = Gauge("eul_waiting_requests", "Calls that wait for the engine.", registry=registry)
        self.tokens = Counter("eul_tokens", "Tokens read and made.", ("kind",), registry=registry)
        self.denials = Counter("eul_policy_denials", "Calls that the policy refused.", ("reason",), registry=registry)
        self.policy_loads = Counter(
            "eul_policy_loads", "Readings of a changed policy.", ("outcome",), registry=registry
        )
        self.registry_polls = Counter(
            "eul_registry_polls", "Readings of what stands ordered in the registry.", ("outcome",), registry=registry
        )
        self.revisions = Gauge("eul_revisions", "Revisions by stage of their life.", ("stage",), registry=registry)
        self.audit_failures = Counter(
            "eul_audit_failures", "Decisions that could not be written into the audit log.", registry=registry
        )
        self.swaps = Counter("eul_swaps", "Moves of an alias in this server.", ("outcome",), registry=registry)
        self.verification_failures = Counter(
            "eul_verification_failures", "Bundles that were not taken up.", ("reason",), registry=registry
        )
        self._histograms(registry)
        self._begin()
        info = Gauge("eul_build_info", "1, with the versions as labels.", ("version", "python"), registry=registry)
        info.labels(version=__version__, python=python_version()).set(1)

    def _begin(self) -> None:
        """Begin every series of a closed set at 0: Prometheus sees no increase in one that begins at 1."""
        for counter, label, values in (
            (self.tokens, "kind", ("prompt", "completion")),
            (self.denials, "reason", DENIALS),
            (self.policy_loads, "outcome", ("loaded", "refused")),
            (self.registry_polls, "outcome", ("done", "failed")),
            (self.swaps, "outcome", ("done", *FAILURES)),
            (self.verification_failures, "reason", FAILURES),
        ):
            for value in values:
                counter.labels(**{label: value})

    def _histograms(self, registry: CollectorRegistry) -> None:
        self.request_seconds = Histogram(
            "eul_request_duration_seconds",
            "From the call's arrival to its end.",
            ("method",),
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "eul_queue_duration_seconds",
            "From a call's turn to wait for the engine to its place there.",
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self.first_token = Histogram(
            "eul_time_to_first_token_seconds",
            "From the call's arrival to its first token.",
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self.inter_token = Histogram(
            "eul_inter_token_latency_seconds",
            "Between two engine steps of one answer, divided by the tokens of the later one.",
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        self.swap_seconds = Histogram(
            "eul_swap_duration_seconds",
            "Swaps by stage: pull, verify, load, probe, activate, drain.",
            ("stage",),
            buckets=SWAP_BUCKETS,
            registry=registry,
        )

        self.load_seconds = Histogram(
            "eul_load_duration_seconds",
            "What loading is made of: verify and cast, while the workers decode, and slot.",
            ("stage",),
            buckets=SWAP_BUCKETS,
            registry=registry,
        )

    @contextmanager
    def swap_stage(self, stage: str) -> Iterator[None]:
        """Time one stage of a swap."""
        started = time.monotonic()
        yield
        self.swap_seconds.labels(stage=stage).observe(time.monotonic() - started)
