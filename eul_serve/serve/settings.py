"""Everything that `eul serve` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from eul_serve.address import Address
from eul_serve.errors import InputError
from eul_serve.rpc.transport import TransportSettings
from eul_serve.swap.leases import LeaseLimits

MIN_KEY_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Settings of a server, the engine's own excepted."""

    registry: str
    """URL of the registry to follow."""
    policy: Path
    """The policy file to follow."""
    tokens: Path | None = None
    """A second file of tokens alone."""
    cache: Path
    """Directory of verified bundles."""
    cache_bytes: int | None = None
    """How many bytes they may have together; None sets no bound."""
    transport: TransportSettings
    """How the server is reached."""
    admin: TransportSettings | None = None
    """How administrators reach it; None has no such port."""
    openai: TransportSettings | None = None
    """How OpenAI's clients reach it over HTTP; None has no such port."""
    page: TransportSettings | None = None
    """How administrators' browsers reach its status page; None has none."""
    audit: Path | None = None
    """File to write decisions to; None writes none."""
    canaries: Path | None = None
    """File of the private texts of canaries; without one, bundles that have canaries are refused."""
    metrics_listen: Address = field(default_factory=lambda: Address("127.0.0.1", 9500))
    """Where the metrics are."""
    key_file: Path | None = None
    """File with the key of the prefix cache's salts; None makes a random one for this process."""
    limits: LeaseLimits = field(default_factory=LeaseLimits)
    """How many requests run at once."""
    queue_seconds: float = 30.0
    """Longest wait for the engine in seconds; a request that would wait longer is refused when it comes."""
    poll_seconds: float = 1.0
    """Seconds between two looks at registry and policy."""
    deadline_seconds: float = 300.0
    """Longest time of one call in seconds, whatever the caller asks for."""
    grace_seconds: float = 30.0
    """Seconds that requests in flight have to finish after SIGTERM."""
    ready_file: Path | None = None
    """File to write the bound addresses to, as JSON, when ready."""

    def __post_init__(self) -> None:
        for name in ("poll_seconds", "queue_seconds", "deadline_seconds", "grace_seconds"):
            if not 0 < getattr(self, name) <= 86_400:
                raise InputError(f"{name}: expected above 0 to 86400 seconds, found {getattr(self, name):g}")
        if self.cache_bytes is not None and self.cache_bytes < 1:
            raise InputError(
                f"--cache-gib: expected above 0, found {self.cache_bytes / 2**30:g}; leave it out for no bound"
            )
        for name in ("total", "tenant"):
            if getattr(self.limits, name) < 1:
                raise InputError(f"requests at once: expected 1 or more, found {getattr(self.limits, name)}")
