"""Retained rows and the base model: moments of hidden units there, and how much a fusion changes their losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eul_serve.errors import BundleMismatchError
from eul_serve.format import Bundle
from eul_trainer.forward.encoding import Example, context_limit, encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.fusion.gated import Stack, placed
from eul_trainer.fusion.hooks import attached, watched
from eul_trainer.fusion.store import RetainMoments
from eul_trainer.model.load import LoadedModel
from eul_trainer.moments.measured import moments_seen
from eul_trainer.records import Row, digest_rows

MOST = 1024
"""Most retained rows on which moments are measured, an equal share of each group."""


@dataclass(slots=True, kw_only=True)
class Retained:
    """Retained rows and the base model to measure them on; the model is left as it was."""

    model: LoadedModel
    """The base model."""
    rows: Sequence[Row]
    """Retained rows."""
    examples: list[Example] = field(init=False)
    """The rows as tokens."""
    runner: Runner = field(init=False)
    """The model and its batches."""
    _before: dict[int, list[float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.examples = encode(self.model.tokenizer, self.rows, limit=context_limit(self.model.network))
        self.runner = Runner(self.model, self.examples)

    @property
    def digest(self) -> str:
        """Digest of the rows."""
        return digest_rows(self.rows)

    @property
    def tokens(self) -> int:
        """Tokens that moments are means over: those that the model reads of the measured rows, prompts included."""
        return sum(example.length - 1 for example in self._measured)

    @property
    def _measured(self) -> list[Example]:
        return [self.examples[index] for index in spread([row.group for row in self.rows], MOST)]

    def check_base(self, bundle: Bundle) -> None:
        """Check that a bundle was made for this model.

        Args:
            bundle: The bundle.

        Raises:
            BundleMismatchError: It was made for another one.
        """
        if bundle.config.base_fingerprint != self.model.base.fingerprint:
            raise BundleMismatchError(
                f"bundle {str(bundle.path)!r}: made for base model {bundle.config.base_fingerprint}, but --model is "
                f"{self.model.base.fingerprint}; name the model that the layers were trained on"
            )

    def moments(self, layers: Mapping[str, Stack], *, inputs: bool = False) -> dict[str, RetainMoments]:
        """Return mean second moments per token on the base model.

        Args:
            layers: All members side by side, on the CPU.
            inputs: Whether the modules' outputs are wanted too.

        Returns:
            The moments by module path; units in the order of the members.
        """
        here = {path: placed(layer, self.model.device) for path, layer in layers.items()}
        found = moments_seen(
            self.runner,
            lambda observer: watched(self.model.network, here, observer),
            self._measured,
            inputs=inputs,
            whole_rows=True,
        )
        return {path: RetainMoments(units=seen.units, inputs=seen.seen_inputs) for path, seen in found.items()}

    def rises(self, layers: Mapping[str, Stack], most: int) -> dict[str, float]:
        """Return by group how much the mean answer loss rises with layers in place, nats.

        Args:
            layers: The layers by module path.
            most: Most rows to measure on; as many of each group as there are, up to an equal share.

        Returns:
            Mean of loss with them minus loss without, by group; negative where it falls.
        """
        chosen = spread([row.group for row in self.rows], most)
        examples = [self.examples[index] for index in chosen]
        if most not in self._before:
            self._before[most] = row_losses(self.runner, examples)
        functions = {path: placed(layer, self.model.device).apply for path, layer in layers.items()}
        with attached(self.model.network, functions):
            after = row_losses(self.runner, examples)
        changes: dict[str, list[float]] = {}
        for index, loss, before in zip(chosen, after, self._before[most], strict=True):
            changes.setdefault(self.rows[index].group, []).append(loss - before)
        return {group: sum(found) / len(found) for group, found in sorted(changes.items())}


def worst(rises: Mapping[str, float]) -> float:
    """Return the largest rise of any group, 0 where none rises."""
    return max(0.0, *rises.values())


def spread(groups: Sequence[str], most: int) -> list[int]:
    """Return indices of at most so many rows: first one of each group, then a second of each, and so on."""
    place: dict[str, int] = {}
    turns = []
    for index, group in enumerate(groups):
        place[group] = place.get(group, -1) + 1
        turns.append((place[group], index))
    return sorted(index for _, index in sorted(turns)[:most])
