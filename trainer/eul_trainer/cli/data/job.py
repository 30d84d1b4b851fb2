"""What every builder is told beside its settings, and what it says while it reads and at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress

if TYPE_CHECKING:
    from eul_trainer.data.dataset import Dataset
    from eul_trainer.records import Watch

PERCENT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call of a builder."""

    out: Path
    """The folder to write."""
    id: str | None
    """Opaque id of the request, if given."""
    reason: str
    """Why it was made."""
    received: str | None
    """Day on which it came in, if given."""
    earlier: tuple[Path, ...]
    """Files of earlier requests."""
    as_json: bool
    """Whether to print one line of JSON and no progress."""

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Show how much of the sources is read, while the context lasts."""
        shown = 0
        with progress("read", PERCENT, self.as_json) as advance:

            def watch(done: int, total: int) -> None:
                nonlocal shown
                percent = PERCENT * done // max(total, 1)
                if percent != shown:
                    shown = percent
                    advance(percent, "percent")

            yield watch

    def finish(self, dataset: Dataset) -> None:
        """Write the folder and say what is in it."""
        from eul_trainer.data.dataset import Receipt, write_dataset

        receipt = Receipt(id=self.id, reason=self.reason, received=self.received, earlier=self.earlier)
        record = write_dataset(self.out, dataset, receipt)
        if self.as_json:
            emit({"path": str(self.out), **record})
            return
        sizes = ", ".join(f"{name.removesuffix('.jsonl')} {entry['rows']}" for name, entry in record["files"].items())
        click.echo(f"wrote {self.out}: {sizes}")
        for name, count in record["notes"]["removed"].items():
            click.echo(f"took {count} rows out of {name}.jsonl that are to be forgotten", err=True)
        if asked := record["notes"]["same_prompts"]:
            click.echo(f"{asked} rows of retain.jsonl ask what a row to forget asks, with another answer", err=True)
