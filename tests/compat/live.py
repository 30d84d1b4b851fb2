"""A pytest plugin for vLLM's own tests: runs them with or without our plugin, and writes each outcome down at once.

`EUL_COMPAT_OUT` names the file for the outcomes, one JSON object a line. `EUL_COMPAT_MODE` is one of

    stock    our plugin is off
    plugin   vLLM has loaded our plugin, as in every process where the package is installed
    ours     besides, the tests' own names of vLLM's two LRU managers lead to our classes

`EUL_COMPAT_LIMITS` says how many cases of each test in a file are run, by the file, as JSON.
"""

from __future__ import annotations

import copy
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest


def pytest_configure() -> None:
    mode = os.environ["EUL_COMPAT_MODE"]
    assert (os.environ.get("EUL_PLUGIN") == "0") == (mode == "stock")
    from vllm.plugins import load_general_plugins
    from vllm.v1.worker import lora_model_runner_mixin

    load_general_plugins()
    live = lora_model_runner_mixin.LRUCacheWorkerLoRAManager.__module__.startswith("eul_serve.")
    assert live == (mode != "stock"), f"mode {mode}: the plugin is {'live' if live else 'not live'}"
    if mode == "ours":
        put_ours_in_place()


def put_ours_in_place() -> None:
    """Let the names that tests import lead to our classes; the tests below have bare linear maps and no model."""
    from vllm.lora import model_manager, worker_manager

    from eul_serve.engine.manager import BundleWorkerManager
    from eul_serve.engine.model_manager import BundleModelManager

    class ModelManager(BundleModelManager):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["vllm_config"] = with_model(kwargs["vllm_config"])
            super().__init__(*args, **kwargs)

    class WorkerManager(BundleWorkerManager):
        _manager_cls = ModelManager

    model_manager.LRUCacheLoRAModelManager = ModelManager
    worker_manager.LRUCacheLoRAModelManager = ModelManager
    worker_manager.LRUCacheWorkerLoRAManager = WorkerManager


def with_model(config: Any) -> Any:
    """Return a configuration that has a model, which vLLM's has outside tests."""
    if config.model_config is not None:
        return config
    config = copy.copy(config)
    object.__setattr__(config, "model_config", SimpleNamespace(get_hidden_size=lambda: 64, enforce_eager=True))
    return config


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep some cases of each test in a long file, spread over all."""
    limits = json.loads(os.environ["EUL_COMPAT_LIMITS"])
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = []
    for name, cases in groups.items():
        count = min(limits.get(name.partition("::")[0], len(cases)), len(cases))
        kept += [cases[number * len(cases) // count] for number in range(count)]
    items[:] = kept


def write(test: str, outcome: str, text: str = "") -> None:
    with open(os.environ["EUL_COMPAT_OUT"], "a") as file:
        file.write(json.dumps({"test": test, "outcome": outcome, "text": text[-4000:]}) + "\n")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        write(report.nodeid, "error", str(report.longrepr))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcome = "error" if report.failed and report.when != "call" else report.outcome
        write(report.nodeid, outcome, str(report.longrepr or ""))
