"""A SISA training's checkpoints: each shard's weights after each slice, as differences from the base model.

A difference is kept in bfloat16, half of float32 and a sixth of weights with moments: 269 MB for SmolLM2-135M. Training
goes on from the weights as they are read back, so that a restart from a checkpoint is the unbroken run, bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from eul_serve.errors import CapacityError, InputError
from eul_trainer.model.load import Network

BYTES_PER_WEIGHT = 2


class Checkpoints:
    """The checkpoints in a directory, by the names that `SisaState.key` gives."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder = folder / "checkpoints"
        self._base = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}

    def path(self, key: str) -> Path:
        """Return the file of a checkpoint."""
        return self.folder / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Return whether a checkpoint is there; each is written whole or not at all."""
        return self.path(key).is_file()

    def reserve(self, count: int) -> None:
        """Refuse to start where the disk cannot hold what is to come.

        Args:
            count: Checkpoints to be written.

        Raises:
            CapacityError: Too little space is free.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = count * BYTES_PER_WEIGHT * sum(tensor.numel() for tensor in self._base.values())
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise CapacityError(
                f"{str(self.folder)!r}: {count} checkpoints take {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are "
                "free; free space, or lower --shards or --slices"
            )

    @torch.no_grad()
    def reset(self, network: Network) -> None:
        """Give a network the base model's weights."""
        for name, parameter in network.named_parameters():
            parameter.copy_(self._base[name])

    @torch.no_grad()
    def load(self, key: str, network: Network) -> None:
        """Give a network the weights of a checkpoint.

        Args:
            key: Name of the checkpoint.
            network: The network.

        Raises:
            InputError: The file is damaged, or of another model.
        """
        try:
            found = safetensors.torch.load_file(self.path(key))
            for name, parameter in network.named_parameters():
                parameter.copy_(self._base[name] + found[name].to(parameter.device).float())
        except (OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            raise InputError(
                f"{str(self.path(key))!r}: damaged; remove it, and the same line trains it again"
            ) from error

    @torch.no_grad()
    def save(self, key: str, network: Network) -> None:
        """Write a checkpoint, and give the network the weights that will be read from it.

        Args:
            key: Name of the checkpoint.
            network: The network.

        Raises:
            CapacityError: The disk is full, or the file cannot be written.
        """
        tensors = {
            name: (parameter - self._base[name]).bfloat16().cpu() for name, parameter in network.named_parameters()
        }
        part = self.folder / f"{key}.part"
        try:
            safetensors.torch.save_file(tensors, part)
            os.replace(part, self.path(key))
        except (OSError, safetensors.SafetensorError) as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise CapacityError(f"{str(self.folder)!r}: cannot write: {error}; free space") from error
        for name, parameter in network.named_parameters():
            parameter.copy_(self._base[name] + tensors[name].to(parameter.device).float())

    def prune(self, keys: Iterable[str]) -> int:
        """Remove all checkpoints but some: those of a shard that held a deleted row still know it.

        Args:
            keys: Names of those that stay.

        Returns:
            The number of removed files.
        """
        kept = {self.path(key).name for key in keys}
        gone = [path for path in self.folder.iterdir() if path.name not in kept]
        for path in gone:
            path.unlink()
        return len(gone)
