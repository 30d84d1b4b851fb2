"""The rows of a run as token ids: those to forget, those to keep, and what is made of the forgotten ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eul_serve.errors import InputError
from eul_trainer.forward.encoding import Example, context_limit, encode
from eul_trainer.forward.masked_words import masked_rows
from eul_trainer.model.load import LoadedModel
from eul_trainer.objectives.catalog import OBJECTIVES
from eul_trainer.records import Row
from eul_trainer.settings import FitSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSets:
    """The encoded rows of a run."""

    forget: list[Example]
    """Rows to forget."""
    retain: list[Example]
    """Rows to keep."""
    refusal: list[Example]
    """The forgotten questions with the refusal as their answer; empty where none is taught."""
    masked: list[Example]
    """The forgotten texts with missing words; empty where the objective asks for none."""
    unrelated: list[Example]
    """Rows that nothing is asked of, whose loss must not rise; empty stands for rows to keep."""

    def all(self) -> list[Example]:
        """Return every example."""
        return [*self.forget, *self.retain, *self.refusal, *self.masked, *self.unrelated]


def encode_sets(
    model: LoadedModel,
    forget: Sequence[Row],
    retain: Sequence[Row],
    settings: FitSettings,
    unrelated: Sequence[Row] = (),
) -> ExampleSets:
    """Encode the rows of a run.

    Args:
        model: The base model.
        forget: Rows to forget.
        retain: Rows to keep, without those to forget.
        settings: The run's settings.
        unrelated: Rows whose loss must not rise.

    Returns:
        The examples.

    Raises:
        InputError: A row is too long, no row is left to keep, or words cannot be masked.
    """
    tokenizer, limit = model.tokenizer, context_limit(model.network)
    refused = [Row(prompt=row.prompt, completion=settings.refusal) for row in forget] if settings.refusal_rows else []
    wanted = OBJECTIVES[settings.objective].masked and settings.weights.get("gamma") != 0
    masked = masked_rows(tokenizer, forget, settings.seed) if wanted and model.encoder_decoder else []
    sets = ExampleSets(
        forget=encode(tokenizer, forget, limit=limit),
        retain=encode(tokenizer, retain, limit=limit),
        refusal=encode(tokenizer, refused, limit=limit, end_token=True),
        masked=encode(tokenizer, masked, limit=limit, end_token=True),
        unrelated=encode(tokenizer, unrelated, limit=limit),
    )
    if not sets.retain:
        raise InputError("retain rows: expected at least one, found none after taking out the rows to forget")
    return sets
