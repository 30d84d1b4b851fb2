"""A client's process as its benchmark sees it: a plan goes in, outcomes come out while it runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO

from eul_serve.errors import EngineError
from loading.outcome import Outcome
from loading.plan import Plan
from loading.processes import program, variables


class Load:
    """Runs a plan without end in a process of its own; leaving the context kills it, `finish` lets it end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._outcomes: list[Outcome] = []
        self._more = threading.Condition()

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            program("client"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables()
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._input.write(self._plan.to_json() + "\n")
        self._input.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def __len__(self) -> int:
        with self._more:
            return len(self._outcomes)

    def wait_for(self, wanted: Callable[[Outcome], bool], since: int, seconds: float) -> bool:
        """Wait for an outcome.

        Args:
            wanted: Whether it is the one.
            since: How many outcomes had come before any that could be it.
            seconds: The longest wait.

        Returns:
            Whether it came.

        Raises:
            EngineError: The client's process has ended.
        """
        end = time.monotonic() + seconds
        with self._more:
            while True:
                if any(wanted(one) for one in self._outcomes[since:]):
                    return True
                since = len(self._outcomes)
                if self._process.poll() is not None:
                    raise EngineError(f"the client's process ended with status {self._process.returncode}")
                if not self._more.wait(end - time.monotonic()) and time.monotonic() >= end:
                    return False

    def finish(self) -> list[Outcome]:
        """Send no more requests, wait for the answers, and return all outcomes.

        Returns:
            The outcomes, in the order in which they became known.

        Raises:
            EngineError: The client's process failed.
        """
        self._input.close()
        if status := self._process.wait(150):
            raise EngineError(f"the client's process ended with status {status}")
        self._reader.join()
        return self._outcomes

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None, "it was made as a pipe"
        return self._process.stdin

    def _read(self) -> None:
        assert self._process.stdout is not None, "it was made as a pipe"
        for line in self._process.stdout:
            if line.startswith('{"number"') and line.endswith("\n"):  # no other kind, and none cut off by a kill
                outcome = Outcome.from_json(line)
                with self._more:
                    self._outcomes.append(outcome)
                    self._more.notify_all()


async def carry_out(plan: Plan) -> tuple[list[Outcome], float]:
    """Carry out a plan with an end in a process of its own.

    Args:
        plan: The plan.

    Returns:
        The outcomes, and the processor's seconds that the client took.

    Raises:
        EngineError: The client's process failed.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*program("client"), stdin=pipe, stdout=pipe, env=variables())
    try:
        output, _ = await process.communicate(plan.to_json().encode() + b"\n")
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise EngineError(f"the client's process ended with status {process.returncode}")
    *lines, last = output.decode().splitlines()
    return [Outcome.from_json(line) for line in lines], float(json.loads(last)["processor_seconds"])
