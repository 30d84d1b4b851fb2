"""A fresh client that looks at all of a registry, and finds what the model says, whole."""

from __future__ import annotations

from eul_serve.errors import EulError
from eul_serve.registry.reader import Reader
from tests.eul_serve.registry.model.memory_store import MemoryStore, Place
from tests.eul_serve.registry.model.model import Model

NAMES = ("poems", "songs")
SIGNATURE = b'{"a": "signature"}'


def judge(place: Place, model: Model, *, log: bool = False) -> None:
    """Tell the model of each difference between what it says and what a fresh reader finds.

    Args:
        place: The store.
        model: What must be there.
        log: Whether to check the whole log too.
    """
    if not model.made:
        return
    reader = Reader(MemoryStore(place))
    try:
        _revisions(reader, model)
        _aliases(reader, model)
        _orders(reader, model)
        if log:
            list(reader.log.entries())
    except EulError as error:
        model.problem(f"a reader finds: {error}")


def _revisions(reader: Reader, model: Model) -> None:
    listed = {(name, revision) for name in reader.names() for revision in reader.revisions(name)}
    if listed != model.revisions.keys():
        model.problem(f"listed: expected {sorted(model.revisions)}, found {sorted(listed)}")
    for name, revision in listed - model.damaged.keys():
        for file in reader.manifest(name, revision).files:
            reader.read_file(name, revision, file)
        if (name, revision) in model.signed and SIGNATURE not in reader.signatures(name, revision):
            model.problem(f"{name}@{revision} lost its signature")


def _aliases(reader: Reader, model: Model) -> None:
    found = {(name, alias): state for name in NAMES for alias, state in reader.aliases(name).items()}
    wanted = {key: [(move.act, move.revision) for move in moves] for key, moves in model.moves.items()}
    if (seen := {key: [(move.act, move.revision) for move in state.history] for key, state in found.items()}) != wanted:
        model.problem(f"aliases: expected {wanted}, found {seen}")
    for (name, alias), state in found.items():
        target = name, state.revision
        if target not in model.revisions and target not in model.damaged:
            model.problem(f"{name}:{alias} points to {state.revision}, which is not listed")


def _orders(reader: Reader, model: Model) -> None:
    standing = reader.standing()
    found = {"hold": standing.held.keys(), "ban": standing.banned.keys(), "delete": standing.deleted.keys()}
    for act, digests in found.items():
        if digests != model.standing[act].keys():
            model.problem(f"{act}: expected {sorted(model.standing[act])}, found {sorted(digests)}")
