"""One request to a registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to the registry."""

    method: str
    """HTTP method."""
    url: str
    """Path from the registry's root, or a whole URL there."""
    repository: str
    """Repository that it is about, which decides the token."""
    what: str
    """What is asked for, for messages."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers besides ours."""
    body: bytes | None = None
    """The body."""
    once: bool = False
    """Whether sending it twice could do harm."""

    @property
    def scope(self) -> str:
        """What the token must allow."""
        reading = self.method in ("GET", "HEAD")
        actions = "pull" if reading else "pull,push,delete" if self.method == "DELETE" else "pull,push"
        return f"repository:{self.repository}:{actions}"
