"""What every registry can do, whatever stores it: a directory, an object store or an OCI registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from eul_serve.format import Bundle, Manifest, Reference
from eul_serve.registry.orders import OrderAct, Standing

Act = Literal["publish", "promote", "rollback"]
OnBytes = Callable[[int], None]
"""Told how many more bytes were copied, for a progress bar."""

RESERVED_NAMES = ("base",)
"""Names that no bundle may have: `base` means the base model wherever an adapter is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One move of an alias."""

    act: Act
    """What moved it."""
    revision: str
    """Where it pointed afterwards, `sha256:<hex>`."""
    at: str
    """When, UTC in ISO 8601, to the second."""
    actor: str | None = None
    """Who moved it, where known."""
    reason: str | None = None
    """Why a covered request was allowed to be dropped, or None where none was."""


@dataclass(frozen=True, slots=True)
class AliasState:
    """Where an alias points, and how it came there."""

    revision: str
    """The current revision, `sha256:<hex>`."""
    history: tuple[AliasMove, ...]
    """All its moves, oldest first; the last one led to `revision`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a publication did."""

    name: str
    """Name of the bundle."""
    revision: str
    """Its revision, `sha256:<hex>`."""
    new: bool
    """False where this name had the revision already."""
    moved: bool = False
    """Whether an alias was moved."""

    @property
    def reference(self) -> str:
        """`name@sha256:<hex>`."""
        return f"{self.name}@{self.revision}"


class Registry(Protocol):
    """A store of published bundles.

    A revision never changes. An alias moves in one step: a reader sees the old or the new target, and every target
    that it sees is complete. A method that names something unknown raises NotFoundError; names that break the grammar
    raise InputError; stored bytes that do not match their digest raise BundleFormatError, and are never returned.
    """

    def names(self) -> list[str]:
        """Return the names that have a revision, sorted."""
        ...

    def revisions(self, name: str) -> list[str]:
        """Return the revisions of a name, sorted."""
        ...

    def manifest(self, name: str, revision: str) -> Manifest:
        """Return the verified manifest of a revision."""
        ...

    def alias_names(self, name: str) -> list[str]:
        """Return the names of a name's aliases, sorted; reads none of them."""
        ...

    def alias(self, name: str, alias: str) -> AliasState:
        """Return one alias of a name, whatever state its other aliases are in."""
        ...

    def aliases(self, name: str) -> dict[str, AliasState]:
        """Return all aliases of a name, sorted; a damaged one raises BundleFormatError."""
        ...

    def resolve(self, reference: Reference) -> str:
        """Return the revision that a reference means now."""
        ...

    def read_file(self, name: str, revision: str, file: str) -> bytes:
        """Return the verified bytes of one small file (config, card) of a revision."""
        ...

    def standing(self) -> Standing:
        """Return the orders that stand: what is held, banned and deleted."""
        ...

    def signatures(self, name: str, revision: str) -> tuple[bytes, ...]:
        """Return the signatures of a revision, unverified, in the order of their digests."""
        ...

    def order(self, act: OrderAct, digest: str, reason: str, actor: str | None = None) -> bool:
        """Hold, ban or delete a revision, or ban a signer; or end that.

        Args:
            act: What.
            digest: Of which revision or signer's key, `sha256:<hex>`.
            reason: Why; recorded.
            actor: Who; recorded.

        Returns:
            Whether it changed what stands.

        Raises:
            InputError: There is no reason, or the digest is none.
        """
        ...

    def fetch(
        self,
        name: str,
        revision: str,
        target: Path,
        *,
        with_statistics: bool = False,
        on_bytes: OnBytes | None = None,
    ) -> None:
        """Write the manifest and the verified files of a revision to a new directory, or nothing.

        Args:
            name: Name of the bundle.
            revision: The revision.
            target: The directory to make; its parent exists.
            with_statistics: Whether to fetch artifacts (fusion statistics) too; never on a server.
            on_bytes: Told of every piece that was written.

        Raises:
            NotFoundError: No such revision.
            BundleFormatError: A stored file is missing or differs from its digest.
            CapacityError: The disk is full.
        """
        ...

    def publish(
        self,
        bundle: Bundle,
        name: str,
        alias: str | None = None,
        *,
        with_statistics: bool = False,
        allow_unforget: str | None = None,
        actor: str | None = None,
        dry_run: bool = False,
        on_bytes: OnBytes | None = None,
        signatures: Sequence[bytes] = (),
    ) -> Published:
        """Store a bundle under a name and, last, move an alias to it. Publishing again changes nothing.

        Args:
            bundle: The bundle, checked by `read_bundle`.
            name: Name to publish under.
            alias: Alias to move; None moves none.
            with_statistics: Whether to store artifacts (fusion statistics) too.
            allow_unforget: Why a request that the alias covers now may be dropped; recorded.
            actor: Who publishes; recorded.
            dry_run: Check everything, write nothing.
            on_bytes: Told of every piece that was copied.
            signatures: Signatures to store beside it, before an alias moves; unverified.

        Returns:
            What was done, or with `dry_run` would be.

        Raises:
            RefusedError: The alias covers a request that the bundle does not.
            BundleFormatError: The files changed since the bundle was read.
            CapacityError: The disk is full; nothing was published.
        """
        ...

    def promote(
        self, name: str, revision: str, alias: str, *, allow_unforget: str | None = None, actor: str | None = None
    ) -> bool:
        """Move an alias to a published revision.

        Args:
            name: Name of the bundle.
            revision: The revision to move to.
            alias: The alias.
            allow_unforget: Why a request that the alias covers now may be dropped; recorded.
            actor: Who moves it; recorded.

        Returns:
            Whether it pointed elsewhere before.

        Raises:
            NotFoundError: The name has no such revision.
            RefusedError: The alias covers a request that the revision does not, and no reason is given.
        """
        ...

    def rollback(self, name: str, alias: str, *, allow_unforget: str | None = None, actor: str | None = None) -> str:
        """Move an alias back to where it pointed before its current target.

        Args:
            name: Name of the bundle.
            alias: The alias.
            allow_unforget: Why a request that the alias covers now may be dropped; recorded.
            actor: Who moves it; recorded.

        Returns:
            The revision that it points to now.

        Raises:
            NotFoundError: No such alias, or it has no earlier target.
            RefusedError: The alias covers a request that the earlier revision does not, and no reason is given.
        """
        ...
