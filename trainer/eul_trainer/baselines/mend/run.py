"""Training the editor on what is kept, and editing the model on what is to be forgotten."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from eul_serve.errors import EulError
from eul_trainer.baselines.mend.editor import Editor, Shape
from eul_trainer.baselines.mend.factors import apply, edited, edited_maps, gradient_factors
from eul_trainer.baselines.mend.settings import MendSettings
from eul_trainer.baselines.methods import Split
from eul_trainer.fit.schedule import stream
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import LoadedModel, Network
from eul_trainer.objectives.terms import cross_entropy, divergence
from eul_trainer.records import Row
from eul_trainer.teaching.run import encode_taught

MAX_LABELS = 8
"""Different answers up to which they are taken as the labels of a classification."""
CALIBRATION = 8
"""Batches that the factors' mean and deviation are taken from."""
CLIP = 100.0
"""Largest norm of the editor's gradient."""
_EDITS, _LOCAL = 3, 4  # names of the random streams

Watch = Callable[[int, str], None]
"""Called after every step with the number of steps taken and a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MendRun:
    """How an editor's training went; the edited weights are in the model."""

    losses: list[float]
    """The editor's loss of each step."""
    seconds: float
    """Seconds of training the editor."""
    edit_seconds: float
    """Seconds of editing the model."""
    maps: list[str]
    """Paths of the edited linear maps."""


def reversed_answers(rows: Sequence[Row], known: Sequence[Row], answer: str) -> list[Row]:
    """Return rows with the answer that an edit teaches: among a few labels the next one, else a given text.

    Args:
        rows: The rows.
        known: All rows, whose answers are the labels if they are few.
        answer: The text for rows whose answers are free text.

    Returns:
        The rows with other answers.
    """
    labels = sorted({row.completion for row in known})
    few = 1 < len(labels) <= MAX_LABELS
    following = {label: labels[(place + 1) % len(labels)] for place, label in enumerate(labels)}
    return [
        Row(prompt=row.prompt, completion=following[row.completion] if few else answer, where=row.where) for row in rows
    ]


def mend(model: LoadedModel, split: Split, settings: MendSettings, watch: Watch | None = None) -> MendRun:
    """Train an editor on the retained rows and edit the model on the forgotten ones; its weights change in place.

    Args:
        model: The taught model.
        split: The rows.
        settings: The settings.
        watch: Told about every step.

    Returns:
        How it went.

    Raises:
        EulError: The editor's loss is not finite.
    """
    started = time.perf_counter()
    both = [*split.retain, *split.forget]
    edits = encode_taught(model, reversed_answers(split.retain, both, settings.answer))
    kept = encode_taught(model, split.retain)
    wanted = encode_taught(model, reversed_answers(split.forget, both, settings.answer))
    runner = Runner(model, [*edits, *kept, *wanted])
    paths = edited_maps(model.network, settings.blocks)
    editor = Editor({path: _shape(model.network, path) for path in paths}, settings).to(model.device)
    losses = _train(editor, runner, edits, kept, settings, watch)
    trained = time.perf_counter()
    size = settings.batch_size
    for first in range(0, len(wanted), size):  # one after the other, each on the model as edited so far
        with torch.no_grad():
            changes = editor(gradient_factors(runner, wanted[first : first + size], paths))
        apply(model.network, changes)
    done = time.perf_counter()
    return MendRun(losses=losses, seconds=trained - started, edit_seconds=done - trained, maps=paths)


def _shape(network: Network, path: str) -> Shape:
    module = network.get_submodule(path)
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    return module.weight.shape[0], module.weight.shape[1]  # GPT-2's maps are stored the other way round


def _train(
    editor: Editor,
    runner: Runner,
    edits: Sequence[Example],
    kept: Sequence[Example],
    settings: MendSettings,
    watch: Watch | None,
) -> list[float]:
    paths = list(editor.place)
    size = settings.batch_size
    editor.calibrate(
        [
            gradient_factors(runner, _draw(edits, settings, _EDITS, number), paths)
            for number in range(min(CALIBRATION, -(-len(edits) // size)))
        ]
    )
    rate = settings.learning_rate
    optimizer = torch.optim.Adam(
        [
            {"params": editor.transforms.parameters(), "lr": rate},
            {"params": editor.log_steps.parameters(), "lr": 100 * rate},
        ]
    )
    losses: list[float] = []
    for step in range(settings.steps):
        edit, local = _draw(edits, settings, _EDITS, step), _draw(kept, settings, _LOCAL, step)
        loss = editor_loss(editor, runner, edit, local, settings.edit_weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        norm = float(torch.nn.utils.clip_grad_norm_(editor.parameters(), CLIP))
        losses.append(loss.item())
        if not (math.isfinite(norm) and math.isfinite(losses[-1])):
            raise EulError(
                f"the editor diverged at step {step + 1}: its loss is not finite; lower --learning-rate (now {rate}) "
                "or --step-size; nothing was written"
            )
        optimizer.step()
        if watch:
            watch(step + 1, f"editor loss {losses[-1]:.3f}")
    return losses


def _draw(examples: Sequence[Example], settings: MendSettings, name: int, step: int) -> list[Example]:
    size = settings.batch_size
    return [examples[row] for row in stream(settings.seed, name, len(examples), step * size, size)]


def editor_loss(
    editor: Editor, runner: Runner, edit: Sequence[Example], local: Sequence[Example], weight: float
) -> torch.Tensor:
    """Return `weight * NLL(edited rows | edited) + KL(before || edited)` on other rows, each a mean over answer tokens.

    Args:
        editor: The editor.
        runner: The model.
        edit: Rows with their new answers.
        local: Rows that must stay as they are.
        weight: Weight of the first term.

    Returns:
        A scalar with a gradient in the editor.
    """
    changes = editor(gradient_factors(runner, edit, list(editor.place)))
    edit_batch, local_batch = runner.batch(edit), runner.batch(local)
    with torch.no_grad():
        before = runner.logits(runner.hidden(local_batch))
    with edited(runner.network, changes):
        learned = runner.logits(runner.hidden(edit_batch))
        after = runner.logits(runner.hidden(local_batch))
    return weight * cross_entropy(learned, edit_batch.targets).mean() + divergence(before, after).mean()
