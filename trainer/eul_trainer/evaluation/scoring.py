"""Rows under teacher forcing, for several systems at once: what is cached is not computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch

from eul_trainer.evaluation.cache import Cache, RowCache
from eul_trainer.evaluation.roles import BASE
from eul_trainer.evaluation.systems import Systems
from eul_trainer.evaluation.view import View, token_sums
from eul_trainer.forward.batches import by_length, by_prompt
from eul_trainer.forward.encoding import Example, context_limit, encode, encode_alone
from eul_trainer.forward.runner import Runner
from eul_trainer.records import Row, digest_rows

SIZE = 32
"""Rows of a batch."""
Tick = Callable[[int, str], None]
"""Told how many results more there are, and of which system."""


def score(
    systems: Systems, names: Sequence[str], rows: Sequence[Row], cache: Cache, tick: Tick, *, alone: bool = False
) -> dict[str, list[View]]:
    """Score rows.

    Args:
        systems: The systems.
        names: Those that score.
        rows: The rows; equal ones are computed once.
        cache: Where results are kept.
        tick: Told about every batch.
        alone: Whether answers are read by themselves, without their questions.

    Returns:
        Per system, one view a row, in the order of the rows.

    Raises:
        InputError: A row is longer than the model can read.
    """
    model = systems.model
    kept = {name: cache.of(systems.identity(name), "alone" if alone else "score") for name in names}
    keys = [digest_rows([row]) for row in rows]
    due = {key: row for key, row in zip(keys, rows, strict=True) if any(key not in kept[name] for name in names)}
    done = {name: sum(key in kept[name] for key in keys) for name in names}
    for name, count in done.items():
        tick(count, name)
    times = Counter(keys)
    if mine := cache.share(due):
        encoded = (encode_alone if alone else encode)(
            model.tokenizer, list(mine.values()), limit=context_limit(model.network)
        )
        _compute(systems, kept, dict(zip(mine, encoded, strict=True)), times, tick)
    cache.exchange()
    for name in names:
        tick(sum(times[key] for key in due if key not in mine), name)
    return {name: [View.from_json(kept[name][key]) for key in keys] for name in names}


@torch.no_grad()
def _compute(
    systems: Systems, kept: Mapping[str, RowCache], due: Mapping[str, Example], times: Mapping[str, int], tick: Tick
) -> None:
    """Run the rows batch by batch, and each batch through the systems one after another."""
    examples, keys = list(due.values()), list(due)
    runner = Runner(systems.model, examples)
    for indices in by_length(examples, SIZE) if systems.model.encoder_decoder else by_prompt(examples, SIZE):
        found = _batch(systems, runner, [examples[index] for index in indices], list(kept))
        for name, views in found.items():
            new = {keys[index]: view.to_json() for index, view in zip(indices, views, strict=True)}
            new = {key: value for key, value in new.items() if key not in kept[name]}
            kept[name].add(new)
            tick(sum(times[key] for key in new), name)


def _batch(
    systems: Systems, runner: Runner, examples: Sequence[Example], names: Sequence[str]
) -> dict[str, list[View]]:
    batch = runner.batch(examples)
    head = runner.network.get_output_embeddings()
    with systems.on(BASE):
        base = runner.hidden(batch)
    hidden = {BASE: base}
    for name in names:
        if name != BASE:
            with systems.on(name):
                hidden[name] = runner.hidden(batch)
    rows = batch.rows.cpu()
    sums = token_sums(head, {name: hidden[name] for name in names}, base, batch.targets)
    return {name: [found.of(rows == row) for row in range(len(examples))] for name, found in sums.items()}
