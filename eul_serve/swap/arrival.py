"""How a revision comes into the engine, and what its failure means to the one who asked for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from eul_serve.errors import (
    BannedError,
    BundleFormatError,
    BundleMismatchError,
    CanaryError,
    CapacityError,
    EngineError,
    EulError,
    InputError,
    NotFoundError,
    RefusedError,
    UntrustedError,
)
from eul_serve.format import Bundle, Manifest
from eul_serve.metrics import Metrics
from eul_serve.registry import Cache, Registry

_log = logging.getLogger("eul_serve.swap")
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0

_REASONS: dict[type[EulError], str] = {
    BundleFormatError: "corrupt",
    BundleMismatchError: "other_base",
    NotFoundError: "missing",
    CanaryError: "canary",  # these before what they are kinds of
    BannedError: "banned",
    UntrustedError: "untrusted",
    RefusedError: "unforget",
    CapacityError: "no_room",
    EngineError: "engine",
    InputError: "unreadable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The registry and the verified cache in front of it. Its methods block; call them in a thread."""

    registry: Registry
    """Where revisions come from."""
    cache: Cache
    """Where verified revisions lie."""
    fingerprint: str
    """Fingerprint of the base model that every bundle must be made for."""
    metrics: Metrics
    """Times the stages."""
    trusted: Callable[[str, str], None]
    """Raises where a revision of a name may not be taken up, whoever has its bytes."""

    def pull(self, name: str, revision: str, pulled: Callable[[], object]) -> Bundle:
        """Bring a revision into the cache, verified.

        Args:
            name: A bundle that has the revision.
            revision: `sha256:<hex>`.
            pulled: Called when its bytes are in the cache, and not yet verified where they have just come.

        Returns:
            The verified bundle, in the cache.

        Raises:
            NotFoundError: The registry has no such revision.
            BundleFormatError: Bytes differ from their digest.
            BundleMismatchError: It was made for another base model.
            CapacityError: The disk is full.
            UntrustedError: Nobody whom the policy believes signed it.
        """
        self.trusted(name, revision)
        timed = _TimedRegistry(self.registry, pulled)
        started = time.monotonic()
        # The cache asks for these two methods alone.
        bundle = self.cache.pull(cast(Registry, timed), name, revision, self.fingerprint)
        spent = time.monotonic() - started
        if timed.seconds:  # not already in the cache
            self.metrics.swap_seconds.labels(stage="pull").observe(timed.seconds)
        if not timed.fetched:
            pulled()
        self.metrics.swap_seconds.labels(stage="verify").observe(spent - timed.seconds)
        return bundle

    def release(self, revision: str) -> None:
        """Let a revision that was pulled leave the cache where others need its room; blocks."""
        try:
            self.cache.release(revision)
        except EulError as error:  # it stays: that costs room until this process ends, and nothing else
            _log.warning("bundle %s: keeps its room in the cache: %s", revision, error)


class _TimedRegistry:
    """A registry that tells copying (pull) from what the cache does with the copy (verify)."""

    def __init__(self, registry: Registry, pulled: Callable[[], object]) -> None:
        self._registry = registry
        self._pulled = pulled
        self.fetched = False
        self.seconds = 0.0

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started

    def manifest(self, name: str, revision: str) -> Manifest:
        with self._timed():
            return self._registry.manifest(name, revision)

    def fetch(self, name: str, revision: str, target: Path, *, with_statistics: bool = False) -> None:
        with self._timed():
            self._registry.fetch(name, revision, target, with_statistics=with_statistics)
        self.fetched = True
        self._pulled()


def reason_of(error: EulError) -> str:
    """Return the metric label of a failure."""
    return next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), "other")


def retry_after(failures: int) -> float:
    """Return how many seconds to wait after so many failures in a row."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 16), LAST_RETRY_SECONDS)


def as_answer(revision: str, error: EulError) -> EulError:
    """Return what a caller is told when a revision cannot be served.

    What is wrong with stored bytes, or with what a bundle hides, is the operator's affair: the caller's request was in
    order, so it is told that the bundle is unavailable, with the next step. `origin_of` finds the error again.
    """
    if isinstance(error, BundleFormatError | InputError | CanaryError | UntrustedError):
        answer = EngineError(
            f"bundle {revision} did not pass verification on this server, so it is not served; "
            "ask the operator to run `eul verify` and to publish it again"
        )
        answer.__cause__ = error
        return answer
    return error


def origin_of(error: EulError) -> EulError:
    """Return what `as_answer` was given, for the server's own records.

    Args:
        error: What whoever asked for a revision is told.

    Returns:
        What went wrong with it.
    """
    return error.__cause__ if isinstance(error, EngineError) and isinstance(error.__cause__, EulError) else error
