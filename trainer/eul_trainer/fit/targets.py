"""The target band, measured: on rows that the model has never seen, or on a twin that never saw the forgotten ones."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from eul_serve.errors import BundleMismatchError, InputError
from eul_trainer.fit.stop import MEASURED_ROWS, Target, probe_rows
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.records import Row


def unseen_target(model: LoadedModel, rows: Sequence[Row], tolerance: float) -> Target:
    """Return the band around the loss of rows of the same kind that the base model has never seen.

    Args:
        model: The base model, with nothing on it yet.
        rows: The unseen rows; up to MEASURED_ROWS of them are measured.
        tolerance: Half the width of the band, nats.

    Returns:
        The band.
    """
    return _band(_mean_loss(model, rows), tolerance, "the rows of --target-rows", "the base model")


def twin_target(model: LoadedModel, name: str, rows: Sequence[Row], tolerance: float) -> Target:
    """Return the band around the loss of the forgotten rows under a model that was trained without them.

    The twin is loaded, measured and let go of.

    Args:
        model: The base model.
        name: The twin's directory, or its name on the hub.
        rows: The rows to forget.
        tolerance: Half the width of the band, nats.

    Returns:
        The band.

    Raises:
        BundleMismatchError: The twin has another tokenizer or chat template, so its losses are of other tokens.
    """
    twin = load_model(name, str(model.device))
    same = (model.base.tokenizer, model.base.chat_template) == (twin.base.tokenizer, twin.base.chat_template)
    if not same:
        raise BundleMismatchError(
            f"twin {name!r}: expected the base model's tokenizer and chat template, found others; "
            "train the twin from the same base"
        )
    loss = _mean_loss(twin, rows)
    del twin
    gc.collect()
    return _band(loss, tolerance, "the rows to forget", "the twin")


def _mean_loss(model: LoadedModel, rows: Sequence[Row]) -> float:
    chosen = [rows[index] for index in probe_rows(len(rows), MEASURED_ROWS)]
    examples = encode(model.tokenizer, chosen, limit=context_limit(model.network))
    losses = row_losses(Runner(model, examples), examples)
    return sum(losses) / len(losses)


def _band(loss: float, tolerance: float, rows: str, who: str) -> Target:
    if not 0 < tolerance < float("inf"):
        raise InputError(f"--target-tolerance: expected a number above 0, found {tolerance!r}")
    if not tolerance < loss < float("inf"):
        raise InputError(
            f"target: the loss of {rows} is {loss:.3f} nats, expected more than --target-tolerance ({tolerance:g}): "
            f"{who} knows them by heart; name rows or a twin that never saw them"
        )
    return Target(low=round(loss - tolerance, 4), high=round(loss + tolerance, 4))
