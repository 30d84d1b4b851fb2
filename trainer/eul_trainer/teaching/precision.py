"""Which number format products are computed in."""

from __future__ import annotations

import torch

_FAST = ("amx_bf16", "avx512_bf16")
"""Capabilities of a processor with which a product in bfloat16 costs less than one in float32."""


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the format that a setting means on a device.

    Args:
        name: auto, float32 or bfloat16; auto is bfloat16 where the device has instructions for it.
        device: Where products are computed.

    Returns:
        The format.
    """
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = torch.cpu.get_capabilities()
        fast = any(found.get(capability) for capability in _FAST)
    return torch.bfloat16 if fast else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Return the context in which products are computed in `dtype` from float32 weights."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype != torch.float32)
