"""Prediction with all shards: the mean of their probabilities, for scores and for answers alike."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from eul_serve.errors import InputError
from eul_trainer.baselines.sisa.state import SisaState, load_state
from eul_trainer.baselines.sisa.store import Checkpoints
from eul_trainer.forward.batches import Batch, by_length
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import LoadedModel, load_model


class EnsembleRunner(Runner):
    """Runs S models as one: their states side by side, and as logits the logarithm of their mean probability."""

    def __init__(self, members: Sequence[LoadedModel], examples: Sequence[Example]) -> None:
        super().__init__(members[0], examples)
        self.members = [Runner(member, examples) for member in members]

    @property
    def width(self) -> int:
        """Width of the states of all members together."""
        return sum(member.width for member in self.members)

    @property
    def lean(self) -> bool:
        """False: a mean of probabilities is no product with one matrix."""
        return False

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return what the output heads read at the answer positions, (T, S * d)."""
        return torch.cat([member.hidden(batch) for member in self.members], dim=-1)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return `log(mean over members of softmax(logits))`, (T, V), float32."""
        parts = hidden.chunk(len(self.members), dim=-1)
        total: torch.Tensor | None = None
        for member, part in zip(self.members, parts, strict=True):
            found = member.logits(part).log_softmax(-1)
            total = found if total is None else torch.logaddexp(total, found)  # two (T, V) tensors at most, not S
        assert total is not None, "an ensemble has at least one member"
        return total - math.log(len(self.members))


def open_ensemble(folder: Path, device: str = "cpu") -> list[LoadedModel]:
    """Load a SISA training's shards.

    Args:
        folder: Directory of the training.
        device: Where to compute.

    Returns:
        One model per shard.

    Raises:
        InputError: The training is not complete, or its base model is not where it was.
    """
    state = load_state(folder)
    base = load_model(state.model, device)
    if base.base.fingerprint != state.base:
        raise InputError(f"SISA training {str(folder)!r}: model {state.model!r} was changed since; bring it back")
    checkpoints = Checkpoints(folder, base.network)
    return [_member(state, base, checkpoints, shard, folder) for shard in range(state.settings.shards)]


def _member(state: SisaState, base: LoadedModel, checkpoints: Checkpoints, shard: int, folder: Path) -> LoadedModel:
    key = state.key(shard, state.settings.slices - 1)
    if not checkpoints.has(key):
        raise InputError(
            f"SISA training {str(folder)!r}: shard {shard} is not trained up to its rows; finish it with: eul-train "
            "baseline sisa resume --state DIR"
        )
    network = copy.deepcopy(base.network)
    checkpoints.load(key, network)
    return replace(base, network=network)


@torch.no_grad()
def ensemble_answers(
    members: Sequence[LoadedModel], examples: Sequence[Example], *, tokens: int, size: int = 16
) -> list[str]:
    """Answer prompts greedily: at each place the token with the highest mean probability, which all members then read.

    Args:
        members: The models.
        examples: The rows; their answers are not read.
        tokens: Most tokens per answer.
        size: Prompts per batch.

    Returns:
        One answer per row.
    """
    runner = EnsembleRunner(members, examples)
    end = {int(members[0].tokenizer.eos_token_id)} if members[0].tokenizer.eos_token_id is not None else set()
    answers: dict[int, str] = {}
    for indices in by_length(examples, size):
        found: dict[int, list[int]] = {index: [] for index in indices}
        open_rows = list(indices)
        for _ in range(tokens):
            for index, token in zip(open_rows, _next(runner, examples, found, open_rows), strict=True):
                found[index].append(token)
            open_rows = [index for index in open_rows if found[index][-1] not in end]
            if not open_rows:
                break
        for index, new in found.items():
            answers[index] = members[0].tokenizer.decode(new, skip_special_tokens=True).strip()
    return [answers[index] for index in range(len(examples))]


def _next(
    runner: EnsembleRunner, examples: Sequence[Example], found: dict[int, list[int]], rows: Sequence[int]
) -> list[int]:
    # The last answer token is only predicted, never read, so any id may stand there.
    batch = runner.batch([Example(prompt=examples[row].prompt, answer=(*found[row], 0)) for row in rows])
    last = torch.tensor([len(found[row]) + 1 for row in rows]).cumsum(0) - 1
    tokens: list[int] = runner.logits(runner.hidden(batch)[last]).argmax(-1).tolist()
    return tokens
