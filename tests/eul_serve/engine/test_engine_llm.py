"""How a running vLLM ends; the fake stands where AsyncLLM does, and the real one is closed in test_engine_vllm.py."""

from __future__ import annotations

import threading

import pytest

from eul_serve.engine.llm import RunningLlm, engine_failures
from eul_serve.errors import EngineError, InputError


class SleepingLlm:
    """Ends only once enough messages have come, as an engine process does that slept through its signal."""

    output_handler = None

    def __init__(self, messages: int) -> None:
        self.left, self.stops = messages, 0
        self.awake = threading.Event()

    def shutdown(self, timeout: float) -> None:
        self.stops += 1
        if self.left and not self.awake.wait(timeout):
            raise AssertionError("not woken in time")

    async def list_loras(self) -> set[int]:
        self.left -= 1
        if not self.left:
            self.awake.set()
        raise RuntimeError("an engine that ends answers nothing")

    async def check_health(self) -> None:
        raise RuntimeError


@pytest.mark.parametrize("messages", [0, 1, 2])
async def test_an_engine_that_sleeps_through_the_signal_is_woken(messages: int) -> None:
    fake = SleepingLlm(messages)
    llm = RunningLlm(fake)
    assert llm.live is fake
    await llm.close()
    await llm.close()
    assert (fake.left, fake.stops) == (0, 1)
    with pytest.raises(EngineError, match="the engine is closed"):
        await llm.check()


async def test_a_failure_of_vllm_is_one_of_the_engine_and_says_what_to_do() -> None:
    with pytest.raises(EngineError, match="the engine failed: RuntimeError; restart the server"):
        await RunningLlm(SleepingLlm(0)).check()
    with pytest.raises(InputError, match="as it was"), engine_failures():
        raise InputError("as it was")
