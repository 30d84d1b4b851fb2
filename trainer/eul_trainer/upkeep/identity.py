"""What a run is made of: settings, data and model. Two runs with the same identity give the same layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eul_serve.format.digest import digest_bytes
from eul_trainer.records import Row, digest_rows
from eul_trainer.settings import FitSettings

_NAMES = {
    "forget": "the rows to forget",
    "retain": "the rows to keep",
    "unrelated": "the unrelated rows",
    "held_forget": "the held-out rows to forget",
    "held_retain": "the held-out rows to keep",
    "base": "the base model",
    "below": "the bundle to train on top of",
}
"""What a person calls a digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Settings, and digests of everything else."""

    settings: dict[str, Any]
    """The settings as JSON."""
    digests: dict[str, str]
    """Digests of the rows to forget, to keep and unrelated ones, of the base model, and of bundles below if any."""

    def to_json(self) -> dict[str, Any]:
        """Return the identity as plain JSON."""
        return {"settings": self.settings, "digests": self.digests}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Identity:
        """Read what `to_json` gave."""
        return cls(settings=dict(found["settings"]), digests=dict(found["digests"]))

    @property
    def digest(self) -> str:
        """One digest of all of it."""
        return digest_bytes(json.dumps(self.to_json(), sort_keys=True).encode())

    def changes(self, then: Identity) -> list[str]:
        """Say what is not as it was.

        Args:
            then: The identity of an earlier run.

        Returns:
            One phrase per difference; empty where there is none.
        """
        names = [name for name in self.settings | then.settings if self.settings.get(name) != then.settings.get(name)]
        found = [
            f"--{name.replace('_', '-')} was {then.settings.get(name)!r:.60} and is {self.settings.get(name)!r:.60}"
            for name in sorted(names)
        ]
        return found + [
            f"{words} changed" for name, words in _NAMES.items() if self.digests.get(name) != then.digests.get(name)
        ]


_FREE = ("unrelated_limit", "cache_memory", "checkpointing")
"""Settings that a run may go on with changed: when it is given up, and what it costs; the layer is the same."""


def _plain(settings: FitSettings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(settings.to_json()))
    return found


def identify(
    fingerprint: str, rows: tuple[Sequence[Row], ...], settings: FitSettings, below: Sequence[str] = ()
) -> Identity:
    """Return the identity of a run.

    Args:
        fingerprint: Of the base model.
        rows: Rows to forget, rows to keep, and unrelated rows.
        settings: The settings.
        below: Revisions of the bundles that the layer is trained on top of.

    Returns:
        The identity.
    """
    digests = {name: digest_rows(found) for name, found in zip(("forget", "retain", "unrelated"), rows, strict=True)}
    digests["base"] = fingerprint
    return Identity(
        settings={name: value for name, value in _plain(settings).items() if name not in _FREE},
        digests=digests | ({"below": " ".join(below)} if below else {}),
    )
