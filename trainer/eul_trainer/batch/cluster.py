"""A pool on a Ray cluster: each request in a process of its own, which Ray starts and ends.

Nothing but text crosses: a task as JSON there, an ending as JSON back. The function is named, not sent, so that workers
run the code that is installed with them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from typing import Any, TypeAlias

from eul_serve.errors import CapacityError, EngineError, InputError
from eul_trainer.batch.journal import write_event
from eul_trainer.batch.task import Ending, Task

LOCAL = "local"
"""Address that starts a cluster on this machine for the length of the batch."""
PATIENCE = 1.0
"""Seconds that `wait` waits for an ending, so that progress shows in between."""
SECONDS_TO_ANSWER = 5.0
"""Seconds that a cluster has to take a connection."""
OBJECT_STORE = 80 * 1024 * 1024
"""Bytes of a local cluster's object store: near the least that Ray takes, for only short texts pass through."""

Ray: TypeAlias = Any
"""The module `ray`, which has no types here."""


def run_text(text: str) -> str:
    """Honour the request in a task's text; this is what Ray calls in a worker.

    Args:
        text: The task.

    Returns:
        Its ending as text.
    """
    from eul_trainer.batch.work import work

    try:
        task = Task.from_json(text)
    except InputError as error:
        return Ending(id="", reason=str(error), hopeless=True).to_json()
    return work(task).to_json()


class RayPool:
    """Hands tasks to a cluster."""

    def __init__(self, address: str, *, jobs: int | None, cpus: int, device: str) -> None:
        """Join or start a cluster.

        Args:
            address: Its address, or `local`.
            jobs: Requests at once; None for as many as there are processors for.
            cpus: Processors for each.
            device: Where a worker computes; a CUDA device takes one GPU of the cluster.
        """
        self._said = contextlib.ExitStack()
        self._said.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray prints what its nodes report
        try:
            self._ray = _connect(address, jobs, cpus)
        except BaseException:
            self._said.close()
            raise
        self._tasks: dict[Any, Task] = {}
        gpus = 1 if device.startswith("cuda") else 0
        self.jobs = jobs or max(1, int(self._ray.cluster_resources().get("CPU", 1)) // cpus)
        # One call per process: a request never sees another one's memory. Attempts are counted here, not by Ray.
        self._run = self._ray.remote(max_calls=1, max_retries=0, num_cpus=cpus, num_gpus=gpus)(run_text)

    def start(self, task: Task) -> None:
        """Hand out a task."""
        self._tasks[self._run.remote(task.to_json())] = task

    def wait(self) -> list[Ending]:
        """Wait a little and return the tasks that ended meanwhile.

        Returns:
            Their endings.

        Raises:
            EngineError: The cluster is gone.
        """
        try:
            ready, _ = self._ray.wait(list(self._tasks), timeout=PATIENCE)
            return [self._ending(reference, self._tasks.pop(reference)) for reference in ready]
        except (ConnectionError, self._ray.exceptions.RaySystemError) as error:
            raise EngineError(
                f"Ray cluster: lost ({type(error).__name__}); finished layers are kept: run the same line again"
            ) from error

    def _ending(self, reference: Any, task: Task) -> Ending:  # noqa: ANN401  # an ObjectRef
        try:
            ending = Ending.from_json(self._ray.get(reference))
        except (self._ray.exceptions.RayTaskError, self._ray.exceptions.RayError) as error:
            return _lost(task, type(error).__name__)
        if ending.reason is None and not task.out.is_dir():
            reason = f"output {str(task.folder)!r}: the worker wrote elsewhere; put it on storage that machines share"
            return Ending(id=task.id, reason=reason, hopeless=True)
        return Ending(id=task.id, reason=ending.reason, hopeless=ending.hopeless)

    def stop(self) -> None:
        """Kill what still runs and leave the cluster; one that this pool started ends with it."""
        for reference in self._tasks:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._tasks.clear()
        self._ray.shutdown()
        self._said.close()


def check_address(address: str) -> None:
    """Look whether a cluster answers, since Ray itself would wait for minutes.

    Args:
        address: `local`, or HOST:PORT.

    Raises:
        InputError: It is neither, or nobody listens there.
    """
    if address == LOCAL:
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"--ray-address {address!r}: expected 'local', or a running cluster as HOST:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise InputError(
            f"--ray-address {address!r}: nobody answers there ({error.strerror or error}); start a cluster with "
            "`ray start --head`, or use local"
        ) from error


def _lost(task: Task, kind: str) -> Ending:
    reason = f"its worker died ({kind}): killed, out of memory, or its machine is gone"
    with contextlib.suppress(CapacityError):
        write_event(task.log, "failed", reason=reason)
    return Ending(id=task.id, reason=reason)


def _connect(address: str, jobs: int | None, cpus: int) -> Ray:
    # Ray would otherwise send the working directory to the cluster under `uv run`, and statistics to its makers.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray-address: needs the package 'ray'; pip install 'eul-serve[batch]'") from error
    check_address(address)
    if address == LOCAL:
        # Ray would otherwise leave a token in the home directory, readable for all, for every later cluster.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            ray.init(
                "local",
                num_cpus=(jobs or max(1, (os.cpu_count() or 1) // cpus)) * cpus,
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                **quiet,
            )
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"--ray-address {address!r}: cannot join: {said:.200}; are its version and RAY_AUTH_TOKEN the same?"
        ) from error
    return ray
