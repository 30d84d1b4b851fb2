"""The files of the served base model: where they lie, and single tensors out of them."""

from __future__ import annotations

from pathlib import Path

import safetensors
import torch

from eul_serve.errors import InputError


def local_model(model: str, revision: str | None = None) -> Path:
    """Return the directory of a model as vLLM loaded it, without ever asking a hub.

    Args:
        model: A directory, or the name of a model in the local hub cache.
        revision: Revision of a hub model.

    Returns:
        The directory.

    Raises:
        InputError: There is no such directory and no local snapshot.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"model {model!r}: expected a local directory or a model in the local hub cache, found neither; "
            "bundles are checked against the model's files, so serve a local directory"
        ) from error


def read_tensor(model: Path, name: str) -> torch.Tensor | None:
    """Read one tensor of a model directory in float32, or None where no file has it."""
    for path in sorted(model.glob("*.safetensors")):
        with safetensors.safe_open(path, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118  # not a mapping: `in` needs the list of names
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor.float()
    return None
