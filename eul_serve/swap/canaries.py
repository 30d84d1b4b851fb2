"""A bundle's canaries, asked before it serves: what it is there to hide must be as unlikely as it was made to be.

The texts are in a private file of the operator's, which is read anew for every revision, so that it can be replaced
while the server runs. What cannot be asked counts as failed. Nobody is told a text, its digest or how likely it was.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eul_serve.engine.base import Engine, ResidentBundle, Work
from eul_serve.errors import CanaryError, InputError
from eul_serve.format.canaries import Canary
from eul_serve.format.canary_text import CanaryText, read_texts
from eul_serve.swap.entry import Entry
from eul_serve.swap.feed import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a revision's canaries."""

    passed: int = 0
    """Canaries that are as unlikely as they must be."""
    likely: int = 0
    """Canaries that are not, or do not fit the engine."""
    unknown: int = 0
    """Canaries that could not be asked."""
    why: str = ""
    """Why they could not, for the operator."""

    @property
    def failed(self) -> int:
        """Canaries that did not pass."""
        return self.likely + self.unknown

    def __str__(self) -> str:
        reasons = [f"{self.likely} answer what the bundle is there to hide"] if self.likely else []
        reasons += [f"{self.unknown} cannot be asked: {self.why}"] if self.unknown else []
        return f"{self.failed} of {self.passed + self.failed} canaries did not pass; {'; '.join(reasons)}"


class Canaries:
    """Asks canaries of an engine."""

    def __init__(self, engine: Engine, texts: Path | None, feed: Feed) -> None:
        """Take the engine.

        Args:
            engine: What is asked.
            texts: File of the private texts; None where the server was given none.
            feed: Told of what came of it.
        """
        self._engine, self._texts, self._feed = engine, texts, feed
        self._failures: dict[str, Outcome] = {}

    async def check(self, entry: Entry) -> None:
        """Return when all canaries of a loaded revision pass.

        Args:
            entry: The revision.

        Raises:
            CanaryError: One failed, or could not be asked.
            EngineError: The engine died.
        """
        if not entry.canaries:
            return
        outcome = await self._ask(entry)
        # A revision that fails is tried again and again: what is the same as before is told once.
        if outcome != self._failures.pop(entry.revision, None):
            passed, failed = outcome.passed, outcome.failed
            self._feed.tell("canary", name=entry.name, revision=entry.revision, passed=passed, failed=failed)
        if outcome.failed:
            self._failures[entry.revision] = outcome
            raise CanaryError(f"bundle {entry.revision}: {outcome}")

    async def _ask(self, entry: Entry) -> Outcome:
        assert entry.resident is not None, "canaries are asked of a loaded revision"
        texts, why = await asyncio.to_thread(self._find, entry.canaries)
        passed = likely = 0
        # One after another: a swap takes no more of the engine than one request does.
        for canary in entry.canaries:
            if (text := texts.get(canary.digest)) is not None:
                hidden = await self._hides(entry.resident, canary, text)
                passed, likely = passed + hidden, likely + (not hidden)
        return Outcome(passed=passed, likely=likely, unknown=len(entry.canaries) - passed - likely, why=why)

    def _find(self, canaries: tuple[Canary, ...]) -> tuple[Mapping[str, CanaryText], str]:
        """Return the texts of canaries by digest, and why there are not more; blocks."""
        if self._texts is None:
            return {}, "start the server with --canaries FILE, which has their texts"
        try:
            found = read_texts(self._texts, {one.digest for one in canaries})
        except InputError as error:
            return {}, str(error)
        return found, f"{str(self._texts)!r} has no text of theirs; add what `eul-train canary --private` wrote"

    async def _hides(self, bundle: ResidentBundle, canary: Canary, text: CanaryText) -> bool:
        """Return whether an answer is as unlikely as it must be."""
        # A salt that nobody else has: no block of the prefix cache comes from elsewhere, or is of use to anybody.
        work = Work(id=secrets.token_hex(8), token_ids=text.prompt, bundle=bundle, salt=secrets.token_hex(16))
        try:
            (score,) = await self._engine.score(work, [text.answer])
        except InputError:  # longer than the context, or of another vocabulary; its words may name a token
            return False
        return math.isfinite(score) and -score >= canary.least_nats
