"""The layers that go into a fused bundle: one per request, taken out of trained layers and of fused bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError
from eul_serve.format import Bundle, ForgottenRequest
from eul_serve.format.bundle import STATISTICS_FILE
from eul_serve.format.weights import LayerWeights, load_layers
from eul_trainer.fusion.reader import read_store
from eul_trainer.fusion.store import Store
from eul_trainer.moments.statistics import LayerStatistics

_SHARED = ("base_fingerprint", "activation", "hidden_bias", "target_modules", "task_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One request's own layer, before any fusion."""

    request: ForgottenRequest
    """The request; its units are set by the fusion."""
    revision: str
    """Revision of the layer as it was trained."""
    layers: dict[str, LayerWeights]
    """Its weights by module path."""
    statistics: LayerStatistics | None
    """Its stored moments; None where the bundle came without `fusion.safetensors`."""
    init_seed: int | None = None
    """Seed of its D; None where it is not known."""
    on_top_of: tuple[str, ...] = ()
    """Revisions of the layers that were on while it was trained."""

    @property
    def rank(self) -> int:
        """Hidden units of the layer."""
        return len(next(iter(self.layers.values())).down)


def collect(bundles: Sequence[Bundle]) -> list[Member]:
    """Return the members of all bundles, each layer once, in the order of their revisions.

    The order makes a fusion independent of the order in which bundles are named.

    Args:
        bundles: Trained layers and fused bundles.

    Returns:
        The members.

    Raises:
        BundleMismatchError: The bundles are for different base models or differ in shape.
        InputError: Two different layers carry the same request, a fused bundle lacks its statistics, or a layer lacks
            one that it was trained on top of.
    """
    check_alike(bundles)
    found: dict[str, Member] = {}
    for bundle in bundles:
        for member in members_of(bundle):
            found.setdefault(member.revision, member)
    owners: dict[str, str] = {}
    for member in found.values():
        other = owners.setdefault(member.request.id, member.revision)
        if other != member.revision:
            raise InputError(
                f"request {member.request.id!r}: two different layers, {other} and {member.revision}; fuse one of them"
            )
    members = [found[revision] for revision in sorted(found)]
    check_below(members)
    return members


def members_of(bundle: Bundle) -> list[Member]:
    """Return the layers that a bundle was made from: itself, or those kept in its `fusion.safetensors`."""
    store = read_store(bundle)
    if not bundle.manifest.parents:
        return [_trained(bundle, store)]
    if store is None:
        raise InputError(
            f"bundle {str(bundle.path)!r}: expected {STATISTICS_FILE}, which a fused bundle needs to be fused again or "
            "revoked from, found none; it is rarely published: use the directory that eul-train fuse wrote"
        )
    if tuple(entry.revision for entry in store.entries) != bundle.manifest.parents:
        raise BundleFormatError(f"bundle {str(bundle.path)!r}: {STATISTICS_FILE} does not match the manifest's parents")
    return [
        Member(
            request=entry.request,
            revision=entry.revision or bundle.revision,
            layers=entry.weights(bundle.config.activation),
            statistics=entry.statistics,
            init_seed=entry.init_seed,
            on_top_of=entry.on_top_of,
        )
        for entry in store.entries
    ]


def _trained(bundle: Bundle, store: Store | None) -> Member:
    requests = bundle.manifest.requests
    if len(requests) != 1:
        raise InputError(
            f"bundle {str(bundle.path)!r}: expected one request or parents, found {len(requests)} requests"
        )
    statistics = store.entries[0].statistics if store is not None and store.entries else None
    facts = bundle.manifest.settings
    return Member(
        request=requests[0],
        revision=bundle.revision,
        layers=load_layers(bundle),
        statistics=statistics,
        init_seed=facts.get("fit", {}).get("init_seed"),
        on_top_of=tuple(facts.get("on_top_of") or ()),
    )


def check_below(members: Sequence[Member]) -> None:
    """Check that every layer comes with those that it was trained on top of.

    Args:
        members: The layers of one bundle.

    Raises:
        InputError: A layer below another is missing.
    """
    there = {member.revision for member in members}
    for member in members:
        if missing := [revision for revision in member.on_top_of if revision not in there]:
            raise InputError(
                f"request {member.request.id!r}: its layer was trained on top of {missing[0]}, which is not among the "
                "layers; name that layer too, or train this one again without it"
            )


def check_alike(bundles: Sequence[Bundle]) -> None:
    """Check that bundles fit each other.

    Args:
        bundles: The bundles, at least one.

    Raises:
        BundleMismatchError: They are for different base models, or differ in activation, bias or modules.
    """
    first = bundles[0]
    for other in bundles[1:]:
        for field in _SHARED:
            here, there = getattr(first.config, field), getattr(other.config, field)
            if here != there:
                raise BundleMismatchError(
                    f"bundles {str(first.path)!r} and {str(other.path)!r}: {field} differs: {here} and {there}; "
                    "only layers of one base model and one shape can be fused"
                )
        if first.widths != other.widths:
            raise BundleMismatchError(
                f"bundles {str(first.path)!r} and {str(other.path)!r}: they wrap different modules"
            )
