"""Rows under teacher forcing, for several systems at once: what is cached is not computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.kept import Kept
from eul_trainer.evaluation.roles import BASE
from eul_trainer.evaluation.systems import Systems
from eul_trainer.evaluation.view import View, token_logprobs, token_sums
from eul_trainer.forward.batches import Batch, by_length, by_prompt
from eul_trainer.forward.encoding import Example, context_limit, encode, encode_alone
from eul_trainer.forward.runner import Runner
from eul_trainer.records import Row, digest_rows

SIZE = 32
"""Rows of a batch."""
Tick = Callable[[int, str], None]
"""Told how many results more there are, and of which system."""


def score(
    systems: Systems,
    names: Sequence[str],
    rows: Sequence[Row],
    cache: Cache,
    tick: Tick,
    *,
    whole: int | None = None,
    alone: bool = False,
) -> dict[str, list[View]]:
    """Score rows.

    Args:
        systems: The systems.
        names: Those that score.
        rows: The rows; equal ones are computed once.
        cache: Where results are kept.
        tick: Told about every batch.
        whole: How many of the rows, from the first on, need all of a view; the others have losses alone, which cost
            less. All need it if not given.
        alone: Whether answers are read by themselves, without their questions.

    Returns:
        Per system, one view a row, in the order of the rows.

    Raises:
        InputError: A row is longer than the model can read.
    """
    model = systems.model
    keys = [digest_rows([row]) for row in rows]
    needed = set(keys[:whole])
    kept = {name: Kept(cache, systems.identity(name), needed, alone) for name in names}
    due = {key: row for key, row in zip(keys, rows, strict=True) if any(key not in kept[name] for name in names)}
    done = {name: sum(key in kept[name] for key in keys) for name in names}
    for name, count in done.items():
        tick(count, name)
    times = Counter(keys)
    if mine := cache.share(due):
        way, limit = encode_alone if alone else encode, context_limit(model.network)
        examples = dict(zip(mine, way(model.tokenizer, list(mine.values()), limit=limit), strict=True))
        _compute(systems, kept, examples, needed, lambda new, name: tick(sum(times[key] for key in new), name))
    cache.exchange()
    for name in names:
        tick(sum(times[key] for key in due if key not in mine), name)
    return {name: [kept[name][key] for key in keys] for name in names}


@torch.no_grad()
def _compute(
    systems: Systems,
    kept: Mapping[str, Kept],
    due: Mapping[str, Example],
    needed: Collection[str],
    told: Callable[[Collection[str], str], None],
) -> None:
    """Run the rows batch by batch, and each batch through the systems one after another."""
    examples, keys = list(due.values()), list(due)
    runner = Runner(systems.model, examples)
    for indices in by_length(examples, SIZE) if systems.model.encoder_decoder else by_prompt(examples, SIZE):
        batch = runner.batch([examples[index] for index in indices])
        whole = [keys[index] in needed for index in indices]
        hidden = {}
        for name in dict.fromkeys([BASE, *kept] if any(whole) else kept):  # the base model is what others diverge from
            with systems.on(name):
                hidden[name] = runner.hidden(batch)
        for name, views in _views(runner, batch, whole, hidden, list(kept)).items():
            found = {keys[index]: view for index, view in zip(indices, views, strict=True)}
            new = {key: view for key, view in found.items() if key not in kept[name]}
            kept[name].add(new)
            told(new, name)


def _views(
    runner: Runner, batch: Batch, whole: Sequence[bool], hidden: Mapping[str, torch.Tensor], names: Sequence[str]
) -> dict[str, list[View]]:
    """Return each system's views of the rows of a batch: whole ones, and where those are not asked, losses alone."""
    head = runner.network.get_output_embeddings()
    full = torch.tensor(whole, device=batch.rows.device)[batch.rows]
    rows, mine = batch.rows[full].cpu(), {name: states[full] for name, states in hidden.items()}
    wanted = {name: mine[name] for name in names}
    sums = token_sums(head, wanted, mine[BASE], batch.targets[full]) if any(whole) else {}
    others, targets = batch.rows[~full].cpu(), batch.targets[~full]
    losses = {name: token_logprobs(head, hidden[name][~full], targets) for name in names}
    return {
        name: [
            sums[name].of(rows == row) if whole[row] else View(logprobs=losses[name][others == row].tolist())
            for row in range(len(whole))
        ]
        for name in names
    }
