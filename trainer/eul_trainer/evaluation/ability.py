"""General ability: tasks of the lm-evaluation-harness, on the base model and with each bundle on.

The harness does the measuring: its `HFLM` around our loaded model, its tasks, its numbers. It is an extra
(`eul-serve[ability]`), so it is imported when it is asked for. The data of its own tasks comes from the hub; tasks in a
folder may have theirs in files.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from eul_serve.errors import InputError
from eul_trainer.evaluation.systems import Systems
from eul_trainer.output.package import versions

PACKAGE = "lm-eval"
RESAMPLES = 1000
"""Resamples of a bootstrapped error: enough for two digits of it. The harness's own 100,000 need many processes."""
Manager: TypeAlias = Any
"""The harness's index of tasks: it has no types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbilitySettings:
    """What the harness is asked for."""

    tasks: tuple[str, ...]
    """Names of tasks, groups or tags."""
    limit: int | None = None
    """Most questions of a task; all if None."""
    shots: int | None = None
    """Examples before each question; the task's own number if None."""
    batch_size: int = 8
    """Questions of a batch."""
    chat: bool = False
    """Whether questions are put into the model's chat template."""


def find_tasks(settings: AbilitySettings, folder: Path | None) -> Manager:
    """Look tasks up before any model is loaded.

    Args:
        settings: The settings.
        folder: A folder with task files of one's own, which come before the harness's.

    Returns:
        The harness's index, in which all tasks are.

    Raises:
        InputError: The harness is not installed, there is no such folder, or no such task.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"--task-folder {str(folder)!r}: expected a folder with task files (*.yaml)")
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(
            f"the package {PACKAGE} is needed and not installed ({error.name}); pip install eul-serve[ability]"
        ) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=str(folder) if folder else None)
    known = set(manager.all_tasks)
    for name in settings.tasks:
        if name not in known:
            raise InputError(
                f"--tasks: {name!r} is none of the {len(known)} tasks; list them with `lm-eval ls tasks`, or name the "
                "folder of your own with --task-folder"
            )
    return manager


def measure_ability(systems: Systems, settings: AbilitySettings, manager: Manager) -> dict[str, Any]:
    """Run the harness on the base model and on each bundle.

    Args:
        systems: The base model and the bundles.
        settings: The settings.
        manager: What `find_tasks` returned.

    Returns:
        The record: fingerprint, revisions, the harness's results by system and task, facts of the tasks, settings,
        versions.

    Raises:
        InputError: A task's data cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name in systems.revisions:
        with systems.on(name):
            told = _run(systems, settings, manager)
        found[name] = {task: _numbers(values) for task, values in told["results"].items()}
        facts = {task: _facts(told, task) for task in told["results"]}
    return {
        "base": systems.model.base.fingerprint,
        "systems": systems.revisions,
        "results": found,
        "tasks": facts,
        "settings": asdict(settings),
        "versions": {**versions(), PACKAGE: importlib.metadata.version(PACKAGE)},
    }


def _run(systems: Systems, settings: AbilitySettings, manager: Manager) -> dict[str, Any]:
    """Return what the harness returns for the system that is on."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    model = systems.model
    harness = HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=settings.batch_size)
    try:
        with _one_process():
            told: dict[str, Any] = simple_evaluate(
                model=harness,
                tasks=list(settings.tasks),
                num_fewshot=settings.shots,
                limit=settings.limit,
                apply_chat_template=settings.chat,
                bootstrap_iters=RESAMPLES,
                log_samples=False,
                task_manager=manager,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"--tasks {','.join(settings.tasks)}: the harness cannot run them: {said}; a task's data comes from the "
            "hub, or from files that a task in --task-folder names"
        ) from error
    return told


@contextmanager
def _one_process() -> Iterator[None]:
    """Keep the harness from forking for its error bars: a process with a model and threads in it may hang as a fork."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """Return the numbers among a task's results: `acc,none` and its error `acc_stderr,none`."""
    return {name: value for name, value in values.items() if isinstance(value, int | float) and "," in name}


def _facts(told: dict[str, Any], task: str) -> dict[str, Any]:
    """Return what a task's numbers depend on, as the harness says it."""
    return {
        "version": told["versions"].get(task),
        "shots": told["n-shot"].get(task),
        "questions": told["n-samples"].get(task, {}).get("effective"),
        "higher_is_better": told["higher_is_better"].get(task, {}),
    }


def table(record: dict[str, Any]) -> list[str]:
    """Return the results as lines: a row for each measure, a column for each system.

    Args:
        record: What `measure_ability` returned.

    Returns:
        The lines, the head first.
    """
    systems: Sequence[str] = list(record["results"])
    head = ["task", "measure", *systems]
    rows = [head]
    for task, measures in record["results"][systems[0]].items():
        for measure in measures:
            if "_stderr," not in measure:
                values = [_shown(record["results"][name][task], measure) for name in systems]
                rows.append([task, measure.removesuffix(",none"), *values])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shown(measures: dict[str, float], measure: str) -> str:
    error = measures.get(measure.replace(",", "_stderr,", 1))
    return f"{measures[measure]:.3f}" + (f" ± {error:.3f}" if error is not None else "")
