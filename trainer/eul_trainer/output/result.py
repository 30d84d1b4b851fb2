"""A trained layer, and what is written of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eul_serve.format import BaseModel, BundleConfig, ForgottenRequest
from eul_serve.format.manifest import round_metric
from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.store import Entry, Store, dump_store
from eul_trainer.model.load import Network
from eul_trainer.moments.statistics import LayerStatistics
from eul_trainer.output.package import Parcel
from eul_trainer.settings import FitSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A trained layer and how it came about."""

    config: BundleConfig
    """The layers' settings."""
    base: BaseModel
    """The base model."""
    data: str
    """Digest of the forgotten rows."""
    layers: dict[str, LayerWeights]
    """The layers by module path."""
    statistics: LayerStatistics
    """What a later fusion needs."""
    curve: list[dict[str, float]]
    """Losses by step."""
    steps: int
    """Steps taken until the returned state."""
    before: float
    """Measured forget loss of the base model, nats."""
    after: float
    """The same with what was trained, after settling and scaling."""
    reached: bool
    """Whether that is inside of the target band."""
    resumed: int
    """Steps that an earlier, killed call had taken."""
    below: tuple[str, ...] = ()
    """Revisions of the trained layers that were on while this one was trained."""
    scale: float = 1.0
    """Factor that brought the layer to its target at the end."""
    network: Network | None = None
    """The model in training where it was no unlearning layer that trained."""


def parcel(request: str, result: FitResult, settings: FitSettings, run: dict[str, Any]) -> Parcel:
    """Return what is written of a trained layer.

    Args:
        request: Opaque id of the request.
        result: The trained layer.
        settings: Its settings.
        run: What is recorded but never published.

    Returns:
        The contents of the bundle.
    """
    forgotten = ForgottenRequest(id=request, data=result.data, units=None)
    metrics = {
        "forget_before": round_metric(result.before),
        "forget_after": round_metric(result.after),
        "forget_tokens": result.statistics.tokens,
        "steps": result.steps,
        "scale": round_metric(result.scale),
        "target_reached": result.reached,
    }
    store = Store(entries=[Entry(request=forgotten, revision=None, statistics=result.statistics)])
    return Parcel(
        config=result.config,
        base=result.base,
        requests=(forgotten,),
        layers=result.layers,
        statistics=dump_store(store),
        settings={"fit": settings.to_json(), "training_dtype": settings.dtype}
        | ({"on_top_of": list(result.below)} if result.below else {}),
        metrics=metrics,
        run=run,
    )
