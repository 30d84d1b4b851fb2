"""Every objective by name: its function, the rows it wants, and the settings it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from eul_serve.errors import InputError
from eul_trainer.objectives.ascent import AscentWeights, ascent_loss
from eul_trainer.objectives.bounded import BoundedWeights, bounded_loss, hinge_ends
from eul_trainer.objectives.dpo import DpoWeights, dpo_loss
from eul_trainer.objectives.graddiff import GradDiffWeights, graddiff_loss
from eul_trainer.objectives.npo import NpoWeights, npo_loss
from eul_trainer.objectives.paper import PaperWeights, paper_loss
from eul_trainer.objectives.rmu import RmuWeights, rmu_loss
from eul_trainer.objectives.simnpo import SimNpoWeights, simnpo_loss
from eul_trainer.objectives.undial import UndialWeights, undial_loss
from eul_trainer.objectives.view import Losses, View

if TYPE_CHECKING:
    from eul_trainer.settings import FitSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec:
    """What the training loop must know of an objective."""

    loss: Callable[[View, Any], Losses]
    """The function; its second argument is an instance of `weights`."""
    weights: type[Any]
    """Frozen dataclass of its weights."""
    printed: bool = False
    """Run as the paper prints it: alternating epochs, linear decay, no stop at a target."""
    refusal: bool = False
    """Wants forgotten questions with the refusal as their answer in each batch."""
    paired: bool = False
    """The refusal rows are the questions of the rows to forget, in their order, and need the teacher too."""
    states: bool = False
    """Wants the outputs of one block, of student and teacher."""
    dense: bool = False
    """Reads logits one by one, of student and teacher, and not losses and divergences alone."""
    masked: bool = False
    """Wants masked-word rows where the model is an encoder-decoder."""
    beta2: float = 0.999
    """Second decay of AdamW."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from those of `FitSettings`."""


_UNSETTLED: dict[str, Any] = {"settle": 0.0, "shift": 0.0, "least_steps": 0}
_PLAIN: dict[str, Any] = {"refusal": "", **_UNSETTLED}


OBJECTIVES: dict[str, ObjectiveSpec] = {
    "bounded": ObjectiveSpec(loss=bounded_loss, weights=BoundedWeights, refusal=True, beta2=0.99),
    "paper": ObjectiveSpec(
        loss=paper_loss,
        weights=PaperWeights,
        printed=True,
        masked=True,
        defaults={"learning_rate": 5e-5, "batch_size": 8, "steps": 400, "scale": 1.0, "unrelated_limit": 0.0, **_PLAIN},
    ),
    "npo": ObjectiveSpec(loss=npo_loss, weights=NpoWeights, defaults=_PLAIN),
    "simnpo": ObjectiveSpec(loss=simnpo_loss, weights=SimNpoWeights, defaults=_PLAIN),
    "graddiff": ObjectiveSpec(loss=graddiff_loss, weights=GradDiffWeights, defaults=_PLAIN),
    "ascent": ObjectiveSpec(loss=ascent_loss, weights=AscentWeights, defaults=_PLAIN),
    "dpo": ObjectiveSpec(loss=dpo_loss, weights=DpoWeights, refusal=True, paired=True, defaults=_UNSETTLED),
    "rmu": ObjectiveSpec(loss=rmu_loss, weights=RmuWeights, states=True, defaults=_PLAIN),
    "undial": ObjectiveSpec(loss=undial_loss, weights=UndialWeights, dense=True, defaults=_PLAIN),
}
"""The objectives by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """An objective with its weights in place."""

    spec: ObjectiveSpec
    """What it is."""
    weights: Any
    """An instance of its weights dataclass."""

    def __call__(self, view: View) -> Losses:
        """Return the loss of one batch and its parts."""
        return self.spec.loss(view, self.weights)


def make_objective(settings: FitSettings) -> Objective:
    """Return the objective of a run.

    Args:
        settings: The run's settings.

    Returns:
        The objective, to be called with a view.
    """
    return Objective(spec=OBJECTIVES[settings.objective], weights=make_weights(settings))


def make_weights(settings: FitSettings) -> Any:  # noqa: ANN401  # every objective has its own dataclass
    """Return the weights of a run's objective: its defaults, what follows from other settings, and those given.

    Args:
        settings: The run's settings.

    Returns:
        An instance of the objective's weights dataclass.

    Raises:
        InputError: A weight has no such name, or its value is refused.
    """
    kind = OBJECTIVES[settings.objective].weights
    known = [item.name for item in fields(kind)]
    numbers = [name for name in known if name != "retain"]
    unknown = [name for name in settings.weights if name not in numbers]
    if unknown:
        raise InputError(
            f"--weight {unknown[0]}: objective {settings.objective!r} has no such weight; it has {', '.join(numbers)}"
        )
    found: dict[str, Any] = {}
    if kind is BoundedWeights:
        found["low"], found["high"] = hinge_ends(settings.target_low, settings.target_high)
    if settings.retain_term is not None:
        if "retain" not in known:
            raise InputError(f"--retain-term: objective {settings.objective!r} has no choice of it; leave it out")
        found["retain"] = settings.retain_term
    return kind(**found | settings.weights)
