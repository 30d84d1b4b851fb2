"""Random clients on one registry, which die, lose answers and repeat themselves, and nothing is lost or half visible.

`make test` runs a short seeded slice; EUL_MODEL_STEPS=10000 runs more. A failure names the seed that shows it again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from eul_serve.format import Bundle
from tests.eul_serve.registry.model.broken import BROKEN
from tests.eul_serve.registry.model.machine import World
from tests.eul_serve.registry.model.stories import ACTS, tell, write_bundles

STEPS = int(os.environ.get("EUL_MODEL_STEPS", "1000"))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Bundle]:
    return write_bundles(tmp_path_factory.mktemp("bundles"))


def test_nothing_is_lost_or_half_visible_whoever_dies_when(bundles: Sequence[Bundle]) -> None:
    told = tell(bundles, STEPS)
    assert told.problems == []
    assert told.steps == STEPS
    assert told.crashes > STEPS // 100


@pytest.mark.parametrize("name", BROKEN)
def test_the_model_finds_a_defence_that_is_broken_on_purpose(bundles: Sequence[Bundle], name: str) -> None:
    assert tell(bundles, max(STEPS, 1000), defences=BROKEN[name]).problems != []


def test_a_seed_tells_the_whole_story(bundles: Sequence[Bundle]) -> None:
    worlds = [World(bundles, 7) for _ in range(2)]
    for world in worlds:
        world.run(ACTS)
    once, again = worlds
    assert (once.operations, once.crashes, once.acts) == (again.operations, again.crashes, again.acts)
    assert once.model.moves == again.model.moves
    assert once.model.moves
