"""The Grafana dashboard as data: python deploy/observability/dashboard.py > deploy/observability/dashboard.json.

A test keeps the committed file equal to this, and asks a real Prometheus for every expression.
"""

from __future__ import annotations

import json
import sys
from typing import Any

WIDTH, HEIGHT = 8, 7
SERVERS = '{instance=~"$instance"}'


def quantiles(metric: str, by: str = "") -> dict[str, str]:
    """Return median and 99th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return {
        f"p{int(100 * level)}{legend}": (
            f"histogram_quantile({level}, sum by ({labels}) (rate({metric}_bucket{SERVERS}[$__rate_interval])))"
        )
        for level in (0.5, 0.99)
    }


def rates(metric: str, by: str) -> dict[str, str]:
    """Return the rate of a counter by a label."""
    return {f"{{{{{by}}}}}": f"sum by ({by}) (rate({metric}{SERVERS}[$__rate_interval]))"}


ROWS: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "What callers feel": [
        ("Calls by code", "reqps", rates("eul_requests_total", "code")),
        ("Time to first token", "s", quantiles("eul_time_to_first_token_seconds")),
        ("Between two tokens", "s", quantiles("eul_inter_token_latency_seconds")),
    ],
    "Load": [
        ("Tokens", "short", rates("eul_tokens_total", "kind")),
        (
            "Calls that run and wait",
            "short",
            {"run": f"sum(eul_in_flight_requests{SERVERS})", "wait": f"sum(eul_waiting_requests{SERVERS})"},
        ),
        ("Wait for the engine", "s", quantiles("eul_queue_duration_seconds")),
    ],
    "Forgetting": [
        ("Revisions by stage", "short", {"{{stage}}": f"sum by (stage) (eul_revisions{SERVERS})"}),
        ("Moves of aliases", "short", {"{{outcome}}": f"sum by (outcome) (increase(eul_swaps_total{SERVERS}[1h]))"}),
        ("Stages of a swap", "s", quantiles("eul_swap_duration_seconds", "stage")),
    ],
    "What was turned away": [
        ("Denials", "reqps", rates("eul_policy_denials_total", "reason")),
        (
            "Not taken up",
            "short",
            {"{{reason}}": f"sum by (reason) (increase(eul_verification_failures_total{SERVERS}[1h]))"},
        ),
        (
            "Policies and audit",
            "short",
            {
                "policy {{outcome}}": f"sum by (outcome) (increase(eul_policy_loads_total{SERVERS}[1h]))",
                "audit lines lost": f"sum(increase(eul_audit_failures_total{SERVERS}[1h]))",
            },
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard, in the form that Grafana imports."""
    panels: list[dict[str, Any]] = []
    for number, (title, row) in enumerate(ROWS.items()):
        top = number * (HEIGHT + 1)
        panels.append({"type": "row", "title": title, "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}})
        for place, (name, unit, series) in enumerate(row):
            panels.append(panel(name, unit, series, place * WIDTH, top + 1))
    for identifier, one in enumerate(panels, 1):
        one["id"] = identifier
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "title": "eul-serve",
        "uid": "eul-serve",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance", "type": "query", "datasource": source, "includeAll": True, "multi": True,
                    "query": "label_values(eul_build_info, instance)", "refresh": 2,
                },
            ]
        },
        "panels": panels,
    }  # fmt: skip


def panel(name: str, unit: str, series: dict[str, str], left: int, top: int) -> dict[str, Any]:
    """Return one panel of lines over time."""
    return {
        "type": "timeseries",
        "title": name,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": left, "y": top},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
            for place, (legend, expression) in enumerate(series.items())
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
