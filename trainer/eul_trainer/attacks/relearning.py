"""Relearning: an attacker who can train gets a few of the forgotten rows, or related ones, and the others are asked.

Few steps on few rows bring back much of what was unlearned in weights (Hu et al., arXiv 2406.13356; Lynch et al., arXiv
2402.16835). Beside it the twin learns from the same rows: what it then knows of the others could be guessed from them.
A bundle is on and frozen while a LoRA is trained around it, as somebody does who can fine-tune the served model.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import inject_adapter_in_model

from eul_serve.errors import InputError
from eul_trainer.attacks.result import AttackResult
from eul_trainer.evaluation.systems import Systems
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.losses import RowScore, row_scores
from eul_trainer.forward.runner import Runner
from eul_trainer.metrics.probability import probability
from eul_trainer.model.load import LoadedModel
from eul_trainer.model.trainable import lora_config
from eul_trainer.objectives.terms import cross_entropy
from eul_trainer.records import Row

ADAPTER = "relearned"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelearnSettings:
    """What the attacker has."""

    steps: tuple[int, ...] = (0, 1, 2, 5, 10, 20)
    """Steps after which the others are asked, rising; each step sees every known row."""
    learning_rate: float = 5e-4
    """AdamW's rate."""
    rank: int = 8
    """Rank of the LoRA."""
    seed: int = 0
    """Seed of its start, and of which rows are known."""


def draw_known(rows: Sequence[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Return the rows that the attacker knows, and the others.

    Args:
        rows: The forgotten rows.
        count: How many are known.
        seed: Seed of which.

    Returns:
        Both, in the order of the rows.

    Raises:
        InputError: No row would be left to ask about.
    """
    if not 0 < count < len(rows):
        raise InputError(
            f"--known: expected 1 to {len(rows) - 1} of {len(rows)} forgotten rows, found {count}; the others are asked"
        )
    chosen = set(random.Random(seed).sample(range(len(rows)), count))  # noqa: S311  # chance, not secrecy
    return [rows[index] for index in sorted(chosen)], [row for index, row in enumerate(rows) if index not in chosen]


def relearn(
    systems: Systems, name: str, known: Sequence[Row], asked: Sequence[Row], settings: RelearnSettings
) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Train on known rows, and ask about the others as it goes.

    Args:
        systems: The model, changed in place; load it afresh for another attack.
        name: The system that is on.
        known: Rows to train on.
        asked: Rows to ask about.
        settings: The settings.

    Yields:
        Steps taken, and the mean measures of the asked rows: loss in nats, probability and accuracy.
    """
    model = systems.model
    limit = context_limit(model.network)
    lesson, exam = (encode(model.tokenizer, rows, limit=limit) for rows in (known, asked))
    with systems.on(name):
        parameters = _train_around(model, settings)
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
        taught, asking = Runner(model, lesson), Runner(model, exam)
        for step in range(max(settings.steps) + 1):
            if step in settings.steps:
                yield step, _means(row_scores(asking, exam))
            batch = taught.batch(lesson)
            loss = cross_entropy(taught.logits(taught.hidden(batch)), batch.targets).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimizer.step()


def _train_around(model: LoadedModel, settings: RelearnSettings) -> list[torch.nn.Parameter]:
    """Put a LoRA on the model beside whatever is on it, and return what trains: the LoRA alone."""
    model.network.requires_grad_(False)
    config = lora_config(model, settings.rank)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # the bundle's, on purpose
        torch.manual_seed(settings.seed)
        inject_adapter_in_model(config, model.network, adapter_name=ADAPTER)
    found = [parameter for path, parameter in model.network.named_parameters() if ADAPTER in path]
    for path, parameter in model.network.named_parameters():
        parameter.requires_grad_(ADAPTER in path)
    return found


def _means(scores: Sequence[RowScore]) -> dict[str, float | None]:
    count = len(scores)
    return {
        "loss": round(sum(score.loss for score in scores) / count, 6),
        "probability": round(sum(probability(score.loss) for score in scores) / count, 6),
        "accuracy": round(sum(score.accuracy for score in scores) / count, 6),
    }


def relearn_results(
    curves: dict[str, dict[int, dict[str, float | None]]], chosen: str, known: int, asked: int
) -> list[AttackResult]:
    """Return one result a number of steps.

    Args:
        curves: Measures by system and steps.
        chosen: The forgotten rows' set.
        known: Rows that were trained on.
        asked: Rows that were asked.

    Returns:
        The results, the fewest steps first.
    """
    steps = next(iter(curves.values()))
    return [
        AttackResult(
            kind="relearning",
            name=f"known-{known}-steps-{step}",
            budget=step,
            set=chosen,
            rows=asked,
            systems={name: curve[step] for name, curve in curves.items()},
        )
        for step in steps
    ]
