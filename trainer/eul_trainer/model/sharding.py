"""The frozen base model spread over several processes (FSDP), so that each holds a part of every block's weights.

A block's weights come together when the block is run, forward and backward, and are let go behind it. What is trained
is small, so every process has it whole; embeddings, norm and head stay whole too, since the head is used by itself.
Accelerate decides whether it is done (`accelerate launch --use_fsdp`); the wrapping is torch's own `fully_shard`.
"""

from __future__ import annotations

import torch

from eul_serve.errors import InputError
from eul_trainer.model.devices import Devices
from eul_trainer.model.load import LoadedModel, Network
from eul_trainer.model.precision import cast
from eul_trainer.settings import FitSettings


def spread(model: LoadedModel, settings: FitSettings, devices: Devices) -> str:
    """Spread a model's blocks over the processes, if a launcher asked for it.

    Args:
        model: The base model; its blocks are changed in place.
        settings: The run's settings.
        devices: The processes.

    Returns:
        What was done, in words; empty where nothing was.

    Raises:
        InputError: All weights are to be trained, which needs them whole.
    """
    if not devices.sharded:
        return ""
    if settings.trainable != "layer":
        raise InputError(
            f"--trainable {settings.trainable}: expected layer where the base model is spread over processes (FSDP); "
            "launch without --use_fsdp"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    cast(model.network, settings.dtype)  # before: the shards keep the precision that they have
    mesh = init_device_mesh(model.device.type, (devices.count,))
    blocks = blocks_of(model)
    whole = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    held = sum(_local(parameter).numel() for block in blocks for parameter in block.parameters())
    return f"spread the base model over {devices.count} processes: {held} of {whole} weights of its blocks are here"


def blocks_of(model: LoadedModel) -> list[Network]:
    """Return the transformer blocks, by the paths of the feed-forward modules in them."""
    found: dict[str, Network] = {}
    for path, _ in model.network.named_modules():
        parts = path.split(".")
        if parts[-1] in model.targets:
            number = next(place for place, part in enumerate(parts) if part.isdigit())
            name = ".".join(parts[: number + 1])
            found[name] = model.network.get_submodule(name)
    return list(found.values())


def _local(parameter: torch.Tensor) -> torch.Tensor:
    part: torch.Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return part
