"""Precision of the frozen base model: float32, or bfloat16 where the machine multiplies it faster."""

from __future__ import annotations

import torch

from eul_trainer.model.load import Network

AUTO = "auto"


def best_dtype(device: str) -> str:
    """Return the dtype that `auto` stands for, by what the device says of itself; the same in every run on a machine.

    Args:
        device: Where to compute, as torch names it.

    Returns:
        bfloat16 where the processor has instructions for its products (AMX or AVX512-BF16, or a GPU with it), else
        float32.
    """
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities()
        fast = bool(known.get("amx_bf16") or known.get("avx512_bf16"))
    return "bfloat16" if fast else "float32"


def cast(network: Network, dtype: str) -> None:
    """Give a model's weights a dtype, in place. Buffers stay: a rounded rotary frequency would move far positions.

    Args:
        network: The transformers model.
        dtype: float32 or bfloat16.
    """
    wanted = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    for parameter in network.parameters():
        parameter.data = parameter.data.to(wanted)
