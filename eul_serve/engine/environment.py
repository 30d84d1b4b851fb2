"""What vLLM's processes find in their environment: variables for the time of their start, and shares of the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


@contextmanager
def environment(variables: Mapping[str, str], without: Sequence[str] = ()) -> Iterator[None]:
    """Hold environment variables that are not set yet, for the processes started meanwhile, and no longer.

    The rest of this process may compile for itself, and must not find its compiler switched off by an engine.

    Args:
        variables: Values by name; a variable that is set already keeps its value.
        without: Names of variables that must not be seen.
    """
    added = {name: value for name, value in variables.items() if name not in os.environ}
    hidden = {name: os.environ.pop(name) for name in without if name in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        os.environ.update(hidden)
        for name in added:
            os.environ.pop(name, None)


def share_cores(cores: Sequence[int], workers: int) -> str:
    """Return which cores each worker on a CPU computes on; by itself vLLM gives a whole socket to each.

    Args:
        cores: Numbers of the cores that this process may use.
        workers: Processes to share them; more than there are cores use some of them together.

    Returns:
        Equal shares as vLLM reads them: `0,1|2,3`.
    """
    size = max(1, len(cores) // workers)
    starts = (worker * size % len(cores) for worker in range(workers))
    return "|".join(",".join(str(core) for core in cores[start : start + size]) for start in starts)
