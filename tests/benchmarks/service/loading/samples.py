"""What a server holds, looked at from outside again and again, and whether that stays as it was."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eul_serve.client import AdminClient
from eul_serve.client.answers import state_name
from loading.counted import count_tasks
from loading.processes import memory_mib, tree
from loading.servers import Server
from tests.eul_serve.service_home import ADMIN_TOKEN

MOST_GROWTH = 0.02
"""By which share of itself memory may grow over the second half of a soak and still count as flat."""
GONE = ("gone", "failed", "announced")
"""States of a revision that has no place in the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at a server that works."""

    minute: float
    """When, in minutes from the beginning."""
    memory_mib: float
    """Memory of all its processes, what they share counted once."""
    descriptors: int
    """Open files and connections of all its processes."""
    in_flight: float
    """Calls that run."""


def look(server: Server, minute: float) -> Sample:
    """Take one sample of a server."""
    return Sample(
        minute=minute,
        memory_mib=memory_mib(server.pid),
        descriptors=descriptors(server),
        in_flight=metric(server.scrape(), "eul_in_flight_requests"),
    )


def descriptors(server: Server) -> int:
    """Return the open files and connections of all processes of a server."""
    return sum(process.num_fds() for process in tree(server.pid))


def metric(text: str, name: str) -> float:
    """Return the value of a metric, summed over its labels; 0 where it has none."""
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, flags=re.MULTILINE)
    return sum(map(float, values))


def held(server: Server) -> dict[str, float]:
    """Return what a server holds for requests: nothing of it may stay when nobody asks.

    Returns:
        `streams` are calls in flight, `leases` requests of tenants, `slots` places in the engine that no alias
        points to, `engine` requests that vLLM has not ended, `tasks` those of the event loop.
    """
    with AdminClient(server.admin, ADMIN_TOKEN) as admin:
        status = admin.status()
    text = server.scrape()
    unused = [one for one in status.revisions if not one.references and state_name(one.state) not in GONE]
    return {
        "streams": metric(text, "eul_in_flight_requests"),
        "waiting": metric(text, "eul_waiting_requests") + status.waiting,
        "running": status.running,
        "leases": sum(tenant.in_flight for tenant in status.tenants),
        "on_revisions": sum(revision.in_flight for revision in status.revisions),
        "slots": len(unused),
        "engine": metric(text, "vllm:num_requests_running") + metric(text, "vllm:num_requests_waiting"),
        # A look at registry or policy may have one under way for a moment.
        "tasks": min(sum(count_tasks(server.pid, server.tasks).values()) for _ in range(3)),
        "descriptors": descriptors(server),
    }


def flatness(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return how memory went over the second half of the samples, by a line through it.

    Args:
        samples: At least four samples.

    Returns:
        The line's rise an hour in MiB and over the half as a share of its mean, and whether that counts as flat.
    """
    half = samples[len(samples) // 2 :]
    minutes, sizes = [one.minute for one in half], [one.memory_mib for one in half]
    slope = statistics.linear_regression(minutes, sizes).slope
    share = slope * (minutes[-1] - minutes[0]) / statistics.mean(sizes)
    return {
        "first_mib": samples[0].memory_mib,
        "last_mib": samples[-1].memory_mib,
        "most_mib": max(one.memory_mib for one in samples),
        "second_half_mib_per_hour": 60 * slope,
        "second_half_share": share,
        "flat": share <= MOST_GROWTH,
    }
