"""What is swept over which data: one JSON file in the sweep's directory, from which every process reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_trainer.records import Fields, Row, read_rows, without
from eul_trainer.settings import FitSettings

HELD_EVERY = 5
"""Without held-out retain rows of one's own, every fifth row of the retain set is held out of training."""
FILE = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The rows of a sweep."""

    forget: Sequence[Row]
    """Rows to forget."""
    retain: Sequence[Row]
    """Rows to keep, without those to forget and those held out."""
    held_forget: Sequence[Row]
    """Rows on which forgetting is measured."""
    held_retain: Sequence[Row]
    """Rows on which keeping is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A sweep."""

    model: str
    """Base model: a directory or a name on the hub."""
    forget: str
    """File of the rows to forget."""
    retain: str
    """File of the rows to keep."""
    request: str
    """Opaque id of the request."""
    held_forget: str | None = None
    """File of rows like those to forget, such as paraphrases; None measures the rows to forget themselves."""
    held_retain: str | None = None
    """File of rows to keep that are not trained on; None holds out every fifth row of the retain file."""
    prompt_field: str = "prompt"
    """Field with the question."""
    completion_field: str = "completion"
    """Field with the answer."""
    device: str = "cpu"
    """Where to compute."""
    every: int = 8
    """Steps between two checkpoints."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of every point, apart from what is varied."""
    axes: dict[str, list[float]] = field(default_factory=dict)
    """Values by the name of what is varied."""

    @property
    def fit(self) -> FitSettings:
        """Settings of every point, apart from what is varied."""
        return FitSettings(**self.settings)

    def read(self) -> Data:
        """Read the rows.

        Returns:
            The rows.

        Raises:
            InputError: A file is not acceptable, or nothing is left to keep.
        """
        fields = Fields(prompt=self.prompt_field, completion=self.completion_field)
        forget = read_rows(Path(self.forget), fields)
        kept = without(read_rows(Path(self.retain), fields), forget)
        if self.held_retain:
            held = without(read_rows(Path(self.held_retain), fields), forget)
            kept = without(kept, held)
        else:
            held = kept[HELD_EVERY - 1 :: HELD_EVERY]
            kept = [row for number, row in enumerate(kept, 1) if number % HELD_EVERY]
        if not kept or not held:
            raise InputError(
                f"retain rows: expected some to train on and some to hold out, found {len(kept)} and {len(held)}; "
                f"give at least {HELD_EVERY} rows, or --held-retain FILE"
            )
        asked = read_rows(Path(self.held_forget), fields) if self.held_forget else forget
        return Data(forget=forget, retain=kept, held_forget=asked, held_retain=held)

    def write(self, folder: Path) -> None:
        """Write the plan for the processes of a sweep."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """Read what `write` wrote."""
        return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
