"""How strange answers are to the base model, which tells language from noise: see `metrics.gibberish`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.roles import BASE
from eul_trainer.evaluation.scoring import Tick, score
from eul_trainer.evaluation.systems import Systems
from eul_trainer.metrics.gibberish import STRANGE
from eul_trainer.records import Row


def strangeness(systems: Systems, rows: Sequence[Row], answers: Sequence[str], cache: Cache, tick: Tick) -> list[float]:
    """Return how strange each answer is, after its question or by itself, whichever is less.

    Only an answer that is strange after its question is read by itself.

    Args:
        systems: The base model, among others.
        rows: The rows; their completions are not read.
        answers: An answer to each.
        cache: Where results are kept.
        tick: Told about the answers that are done.

    Returns:
        Mean losses under the base model, nats per token; infinite for an empty answer.
    """
    asked = {
        index: Row(prompt=row.prompt, completion=text)
        for index, (row, text) in enumerate(zip(rows, answers, strict=True))
        if text.strip()
    }
    tick(len(answers) - len(asked), BASE)
    found = dict(zip(asked, score(systems, [BASE], list(asked.values()), cache, tick, whole=0)[BASE], strict=True))
    strange = {
        index: Row(prompt="", completion=asked[index].completion)
        for index, view in found.items()
        if view.loss > STRANGE
    }
    alone = score(systems, [BASE], list(strange.values()), cache, lambda more, system: None, whole=0, alone=True)[BASE]
    losses = {index: view.loss for index, view in found.items()}
    for index, view in zip(strange, alone, strict=True):
        losses[index] = min(losses[index], view.loss)
    return [losses.get(index, math.inf) for index in range(len(answers))]
