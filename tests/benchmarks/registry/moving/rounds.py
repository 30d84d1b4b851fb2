"""A round, in which every way of moving a bundle has its turn, and what the rounds of one size come to."""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eul_serve.errors import EulError
from eul_serve.format import Bundle, read_bundle
from moving.mover import Mover, timed
from moving.ours import Ours

OURS = "ours"
Round = dict[str, dict[str, float]]
"""Numbers by what was done, then by who did it."""


def one_round(bundle: Bundle, movers: Mapping[str, Mover], place: Path) -> Round:
    """Publish and pull by every mover, in a shuffled order each time.

    Args:
        bundle: What is moved.
        movers: Ours and its peers by name; the places of all are new.
        place: A directory to make, for what is pulled; empty afterwards.

    Returns:
        Seconds of `publish` and `pull`; for ours those of the `second_publish`, the bytes that it brought to the store
        (`second_sent`), and the seconds of `check`.

    Raises:
        EulError: What was pulled is not the bundle.
    """
    place.mkdir()
    found: Round = {"publish": {}, "pull": {}}
    for name in _shuffled(movers):
        found["publish"][name] = timed(movers[name].publish)
    ours = movers[OURS]
    assert isinstance(ours, Ours), "so the movers are named"
    found["second_publish"] = {OURS: timed(ours.publish)}
    found["second_sent"] = {OURS: ours.sent}
    for name in _shuffled(movers):
        found["pull"][name] = timed(partial(movers[name].pull, place / name))
    for name in movers:
        pulled: list[Bundle] = []
        seconds = timed(lambda target=place / name, into=pulled: into.append(read_bundle(target)))
        if pulled[0].revision != bundle.revision:
            raise EulError(f"{name}: pulled {pulled[0].revision}, expected {bundle.revision}")
        if name == OURS:
            found["check"] = {OURS: seconds}
        shutil.rmtree(place / name)
    return found


def _shuffled(movers: Mapping[str, Mover]) -> list[str]:
    return random.sample(sorted(movers), len(movers))


def summed(rounds: Sequence[Round], size: int) -> dict[str, Any]:
    """Return what the rounds with one bundle say.

    Args:
        rounds: The rounds.
        size: Bytes of the bundle.

    Returns:
        Speeds as parts of each peer's (more is better), taken within a round: their median and range; and the medians
        of the seconds of everything.
    """
    peers = [name for name in rounds[0]["publish"] if name != OURS]
    ratios = {
        f"{act}_vs_{peer}": [one[act][peer] / one[act][OURS] for one in rounds]
        for act in ("publish", "pull")
        for peer in sorted(peers)
    }
    return {
        "bytes": size,
        **{name: statistics.median(values) for name, values in ratios.items()},
        "ranges": {name: [min(values), max(values)] for name, values in ratios.items()},
        "publish_seconds": _medians(rounds, "publish"),
        "pull_seconds": _medians(rounds, "pull"),
        "second_publish": {
            "bytes_uploaded": max(one["second_sent"][OURS] for one in rounds),
            "seconds": _medians(rounds, "second_publish")[OURS],
        },
        "check_seconds": _medians(rounds, "check")[OURS],
    }


def _medians(rounds: Sequence[Round], act: str) -> dict[str, float]:
    return {name: statistics.median([one[act][name] for one in rounds]) for name in sorted(rounds[0][act])}
