"""Nobody reaches what is hidden: every attempt fails, and succeeds where the one defence that stops it is off.

The second half is the control: an attempt that could not succeed in any case would prove nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.eul_serve.bypass import attempts, attempts_web
from tests.eul_serve.bypass.arena import Attempt, arena
from tests.eul_serve.service_home import ServiceHome

ATTEMPTS = [*attempts.ATTEMPTS, *attempts_web.ATTEMPTS]
each = pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)


@each
async def test_nothing_gets_through(home: ServiceHome, tmp_path: Path, attempt: Attempt) -> None:
    async with arena(home, tmp_path / "keys.json") as place:
        assert not await attempt.send(place)


@each
async def test_without_the_defence_it_would(
    home: ServiceHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: Attempt
) -> None:
    async with arena(home, tmp_path / "keys.json") as place:
        attempt.off(monkeypatch)
        assert await attempt.send(place)


def test_there_are_many() -> None:
    assert len(ATTEMPTS) >= 60
    assert len({one.name for one in ATTEMPTS}) == len(ATTEMPTS)
