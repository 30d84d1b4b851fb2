"""What must hold when all clients have ended: the dead stop nobody, and what nobody needs goes."""

from __future__ import annotations

from collections.abc import Sequence

from eul_serve.format import Bundle
from eul_serve.registry.claims import PUBLISH_SECONDS
from eul_serve.registry.collect import Collector
from eul_serve.registry.stored import StoredRegistry
from tests.eul_serve.registry.model.client import Defences
from tests.eul_serve.registry.model.judge import judge
from tests.eul_serve.registry.model.memory_store import MemoryStore, Place
from tests.eul_serve.registry.model.model import Model

LAST = 0
"""Number of the client that comes last."""


def check_end(place: Place, model: Model, bundles: Sequence[Bundle], defences: Defences) -> None:
    """Repair what is damaged, collect a day later, and tell the model of what is left too much.

    Args:
        place: The store, at which nobody is at work.
        model: What must be there.
        bundles: What may be published.
        defences: What holds.
    """
    store = MemoryStore(place, LAST)
    registry = defences.registry(store)

    def wait(seconds: float) -> None:
        place.now += seconds

    registry.claims = defences.claims(store, wait, lambda: place.now)
    gone = model.standing["ban"].keys() | model.standing["delete"].keys()
    for name, revision in list(model.damaged):
        if revision in gone:
            return  # nobody may repair it, and nothing is collected beside it
        registry.publish(next(bundle for bundle in bundles if bundle.revision == revision), name)
    if model.made:
        place.now += PUBLISH_SECONDS + 1
        model.collecting.add(LAST)
        Collector(registry, keep_days=0.0).collect()
        judge(place, model, log=True)
        _check_rest(place, model, registry)


def _check_rest(place: Place, model: Model, registry: StoredRegistry) -> None:
    for name, revision in model.revisions:
        if model.needed(name, revision) is None:
            model.problem(f"at the end {name}@{revision} is there, and nobody needs it")
    manifests = [registry.manifest(name, revision) for name, revision in model.revisions]
    named = {entry.sha256 for manifest in manifests for entry in manifest.files.values()}
    if named != place.blobs.keys():
        model.problem(f"at the end {len(place.blobs)} blobs are there, and {len(named)} are named")
    if claims := [key for key in place.records if key[0] == "claims"]:
        model.problem(f"at the end {len(claims)} claims are left")
