"""Metrics, alerts and the dashboard, as promtool and a real Prometheus see them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from eul_serve.metrics import Exposition, Metrics
from eul_serve.swap.arrival import reason_of

pytestmark = pytest.mark.tools
ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "observability"
BIN = ROOT / ".tools" / "prometheus" / "usr" / "bin"
NAMES = re.compile(r"\beul_[a-z_]+")


def promtool(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "promtool"), *words], cwd=FOLDER, input=text, capture_output=True, text=True, timeout=60
    )


def used_metrics(metrics: Metrics) -> None:
    """Give every metric a value, as a server would in time."""
    metrics.requests.labels(method="Generate", code="OK").inc()
    for histogram in (metrics.first_token, metrics.inter_token, metrics.queue_seconds):
        histogram.observe(0.1)
    for stage in ("pull", "load"):
        metrics.swap_seconds.labels(stage=stage).observe(0.1)
        metrics.load_seconds.labels(stage=stage).observe(0.1)
    metrics.request_seconds.labels(method="Generate").observe(0.1)
    metrics.revisions.labels(stage="active").set(1)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panel_expressions() -> list[str]:
    board = json.loads((FOLDER / "dashboard.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def test_names_and_help_keep_to_prometheus_s_rules() -> None:
    metrics = Metrics(CollectorRegistry())
    used_metrics(metrics)
    done = promtool("check", "metrics", text=generate_latest(metrics.registry).decode())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_name_that_does_not_is_seen() -> None:
    """The control of the test above."""
    done = promtool("check", "metrics", text="# TYPE eul:calls counter\neul:calls 1\n")
    assert done.returncode == 3


def test_the_alerts_fire_when_they_must_and_not_before() -> None:
    for words in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")):
        done = promtool(*words)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_explained() -> None:
    tested = set(re.findall(r"alertname: (\w+)", (FOLDER / "alerts_test.yaml").read_text()))
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    explained = re.findall(r"^## (Eul\w+)$", page, re.MULTILINE)
    names = [rule["alert"] for rule in rules()]
    assert tested == set(names)
    assert explained == names
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/how-to/alerts.md#{rule['alert'].lower()}"


def test_the_dashboard_is_what_its_source_makes() -> None:
    import sys

    made = subprocess.run([sys.executable, str(FOLDER / "dashboard.py")], capture_output=True, text=True, timeout=60)
    assert (FOLDER / "dashboard.json").read_text() == made.stdout


def test_every_series_of_a_closed_set_begins_at_zero() -> None:
    """One that began at 1 would show no increase, and its alert would not fire the first time."""
    text = generate_latest(Metrics(CollectorRegistry()).registry).decode()
    for series in (
        'eul_swaps_total{outcome="unforget"} 0.0',
        'eul_verification_failures_total{reason="corrupt"} 0.0',
        'eul_policy_loads_total{outcome="refused"} 0.0',
        "eul_audit_failures_total 0.0",
        'eul_policy_denials_total{reason="identity"} 0.0',
    ):
        assert series in text


def test_every_reason_of_a_failure_is_in_the_closed_set() -> None:
    from eul_serve import errors
    from eul_serve.metrics.metrics import FAILURES

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EulError)]
    assert {reason_of(kind("x")) for kind in kinds} <= set(FAILURES)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that scrapes a real metrics port; the address of its API."""
    root, metrics = tmp_path_factory.mktemp("prometheus"), Metrics(CollectorRegistry())
    used_metrics(metrics)
    with Exposition("127.0.0.1", 0, metrics.registry) as exposition, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        target = {"targets": [f"127.0.0.1:{exposition.port}"]}
        job = {"job_name": "eul-serve", "scrape_interval": "1s", "static_configs": [target]}
        config = {"rule_files": [str(FOLDER / "alerts.yaml")], "scrape_configs": [job]}
        (root / "prometheus.yaml").write_text(yaml.safe_dump(config))
        process = subprocess.Popen(
            [
                str(BIN / "prometheus"), f"--config.file={root / 'prometheus.yaml'}",
                f"--storage.tsdb.path={root / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def ask(address: str, path: str, **parameters: str) -> Any:
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{address}/api/v1/{path}?{query}", timeout=10) as response:
        return json.load(response)["data"]


def wait_for(address: str) -> None:
    """Return when two scrapes have come in."""
    end = time.monotonic() + 60
    while True:
        try:
            found = ask(address, "query", query="count_over_time(up[1m]) >= 2 and up == 1")["result"]
        except OSError:
            found = []
        if found:
            return
        assert time.monotonic() < end, "Prometheus did not scrape the port within a minute"
        time.sleep(0.2)


def test_every_metric_that_is_asked_for_is_scraped(prometheus: str) -> None:
    scraped = set(ask(prometheus, "label/__name__/values"))
    asked = {
        name for text in (*panel_expressions(), *(rule["expr"] for rule in rules())) for name in NAMES.findall(text)
    }
    assert len(asked) >= 12
    assert asked - scraped == set()


def test_every_expression_of_the_dashboard_is_one(prometheus: str) -> None:
    for expression in panel_expressions():
        filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
        assert ask(prometheus, "query", query=filled)["resultType"] == "vector", expression
        assert ask(prometheus, "query", query=filled)["result"], f"nothing to draw: {expression}"


def test_prometheus_has_taken_up_the_alerts_and_none_fires(prometheus: str) -> None:
    groups = ask(prometheus, "rules")["groups"]
    found = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(found) == {rule["alert"] for rule in rules()}
    assert "err" not in found.values()
    assert ask(prometheus, "alerts")["alerts"] == []
