"""Whether a registry's past is whole: its chains one by one, and against its log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from eul_serve.audit.chain import Entry
from eul_serve.errors import BundleFormatError, EulError
from eul_serve.registry.stored import StoredRegistry

_SHOWN = 5
"""How many faults a message names."""
_Act = tuple[str | None, ...]
"""What the log must tell of one act: act, name, alias, digest, actor, reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was read and found whole."""

    log: int
    """Entries of the log."""
    orders: int
    """Holds, bans, deletions and their ends."""
    aliases: int
    """Aliases."""
    revisions: int
    """Revisions."""
    head: str | None
    """Digest of the log's last entry; None where it has none."""


def check_chains(registry: StoredRegistry) -> Checked:
    """Read the orders, all aliases, the names of all revisions and the log, and hold them against each other.

    Args:
        registry: The registry.

    Returns:
        What was read.

    Raises:
        BundleFormatError: Something was changed, or happened without the log; names the first few.
    """
    registry.mark.check()
    faults: list[str] = []
    names = registry.names()
    # The log is read last: what is seen before was logged before, so others may go on meanwhile.
    aliases = {f"{name}:{alias}": (name, alias) for name in names for alias in registry.alias_names(name)}
    acts = [act for name, alias in aliases.values() for act in _moves(registry, name, alias, faults)]
    orders = _orders(registry, faults)
    revisions = [("store", name, None, revision) for name in names for revision in registry.revisions(name)]
    log = _log(registry, faults)
    told = Counter(_told(entry) for entry in log)
    faults += [f"{_text(act)} is not in the log" for act in (Counter([*acts, *orders]) - told)]
    stored = {_told(entry)[:4] for entry in log}
    faults += [f"{_text(act)} is not in the log" for act in revisions if act not in stored]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise BundleFormatError(f"{'; '.join(faults[:_SHOWN])}{more}; compare with a copy of the registry")
    return Checked(
        log=len(log),
        orders=len(orders),
        aliases=len(aliases),
        revisions=len(revisions),
        head=log[-1].digest if log else None,
    )


def _moves(registry: StoredRegistry, name: str, alias: str, faults: list[str]) -> Iterator[_Act]:
    try:
        for move in registry.alias(name, alias).history:
            yield move.act, name, alias, move.revision, move.actor, move.reason
    except EulError as error:
        faults.append(str(error))


def _orders(registry: StoredRegistry, faults: list[str]) -> list[_Act]:
    try:
        return [(one.act, None, None, one.digest, one.actor, one.reason) for one in registry.orders.given()]
    except EulError as error:
        faults.append(str(error))
        return []


def _log(registry: StoredRegistry, faults: list[str]) -> list[Entry]:
    entries: list[Entry] = []
    try:
        entries += registry.log.entries()
    except EulError as error:
        # Without a log, that every act is missing in it says nothing more.
        raise BundleFormatError("; ".join([str(error), *faults[:_SHOWN]])) from error
    return entries


def _told(entry: Entry) -> _Act:
    facts = entry.facts
    found = [facts.get("name"), facts.get("alias"), facts.get("revision", facts.get("digest"))]
    found += [facts.get("actor"), facts.get("reason")]
    return (entry.act, *(None if word is None else str(word) for word in found))


def _text(act: _Act) -> str:
    word, name, alias, digest = act[:4]
    where = f"{name}:{alias}: " if alias else f"{name}: " if name else ""
    return f"{where}{word} {digest}"
