"""vLLM while it runs, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from eul_serve.engine.compat import count_unfinished, stop_llm
from eul_serve.errors import EngineError, EulError

_SHUTDOWN_SECONDS = 30.0
_POKE_SECONDS = 0.5


class RunningLlm:
    """A started AsyncLLM, until it is closed."""

    def __init__(self, llm: Any) -> None:  # noqa: ANN401  # vLLM is not typed
        """Take a started AsyncLLM."""
        self._llm = llm

    @property
    def live(self) -> Any:  # noqa: ANN401  # vLLM is not typed
        """The AsyncLLM.

        Raises:
            EngineError: It was closed.
        """
        if self._llm is None:
            raise EngineError("the engine is closed")
        return self._llm

    async def check(self) -> None:
        """Return when it can serve.

        Raises:
            EngineError: It cannot.
        """
        with engine_failures():
            await self.live.check_health()

    async def close(self) -> None:
        """Stop it and wait for its processes; closing it again changes nothing."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        if llm.output_handler is not None and not count_unfinished(llm):
            llm.output_handler.cancel()  # else it reports the end of the engine as a failure
        stopping = asyncio.create_task(asyncio.to_thread(stop_llm, llm, _SHUTDOWN_SECONDS))
        while not (await asyncio.wait([stopping], timeout=_POKE_SECONDS))[0]:
            # The engine process may have gone to sleep past the signal (see the ledger); any message wakes it.
            with suppress(Exception):
                await asyncio.wait_for(llm.list_loras(), _POKE_SECONDS)
        await stopping


@contextmanager
def engine_failures() -> Iterator[None]:
    """Turn what vLLM raises into an `EngineError`.

    Yields:
        Nothing.

    Raises:
        EngineError: vLLM failed.
    """
    try:
        yield
    except EulError:
        raise
    except Exception as error:
        raise EngineError(f"the engine failed: {str(error) or type(error).__name__}; restart the server") from error
