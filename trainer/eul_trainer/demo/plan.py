"""Where everything of the demonstration lies, and who asks for what."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DATA = Path(os.path.relpath(Path(__file__).parent / "data"))
BOTH = "both"
"""Name of the bundle that covers every request, and of the tenant that uses it."""
TARGET = ("--target-low", "3.25", "--target-high", "3.75")
"""How far to forget, in nats: a little further than rows never seen, which have 2.8 (see docs/lab.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The demonstration's paths and sizes."""

    out: Path
    """Directory of all that it makes."""
    model: Path
    """Directory of the base model."""
    make_model: bool = True
    """Whether to make the embedded base model there; a second call finds it done."""
    data: Path = DATA
    """Directory of the rows: forget_TOPIC.{train,heldout}.jsonl, retain.{train,heldout}.jsonl and unseen.jsonl."""
    target: tuple[str, ...] = TARGET
    """Arguments of `eul-train fit` that say how far to forget."""
    fit_options: tuple[str, ...] = ()
    """Further arguments of `eul-train fit`, for a short run."""
    dtype: str = "auto"
    """dtype of the server."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of the two deletion requests, sorted."""
        return tuple(sorted(path.name[7:-12] for path in self.data.glob("forget_*.train.jsonl")))

    @property
    def bundles(self) -> dict[str, Path]:
        """Directory of every bundle by its name: one for each topic, and the fused one."""
        return {name: self.out / "bundles" / name for name in (*self.topics, BOTH)}

    @property
    def registry(self) -> Path:
        """The registry's directory."""
        return self.out / "registry"

    @property
    def publisher(self) -> Path:
        """The private key that every bundle is signed with; the public one is `publisher.pub` beside it."""
        return self.out / "publisher.pem"

    @property
    def evaluation(self) -> Path:
        """The directory of the evaluation, with metrics.json and its own report."""
        return self.out / "eval"

    @property
    def certificate(self) -> Path:
        """The directory of the fused bundle's certificate, with `certificate.pub` beside it."""
        return self.out / "certificate"

    @property
    def unseen(self) -> Path:
        """The file of rows about an invented scientist and invented books, which no model has seen."""
        return self.data / "unseen.jsonl"

    def forget(self, topic: str, split: str) -> Path:
        """Return the file of a topic's rows; `split` is train or heldout."""
        return self.data / f"forget_{topic}.{split}.jsonl"

    def retain(self, split: str) -> Path:
        """Return the file of retained rows; `split` is train or heldout."""
        return self.data / f"retain.{split}.jsonl"
