"""Our kernels compile to machine code for an A100 (sm_80) and an H100 or H200 (sm_90), and fit on them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.eul_serve.engine.kernels.kernel_cases import start_python

SHARED_LIMIT = 99 * 1024
"""Bytes of shared memory of a program on the smallest of the GPUs (compute capability 8.6); an A100 has 163 KB."""


def test_every_kernel_fits_on_the_gpus(tmp_path: Path) -> None:
    text = start_python(
        "tests.eul_serve.engine.kernels.compile_kernels", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)
    )
    found = [json.loads(line) for line in text.splitlines()]
    assert {(taken["kernel"], taken["sm"]) for taken in found} == {
        (kernel, target) for kernel in ("_fused", "_shrink", "_expand") for target in (80, 90)
    }
    assert [taken for taken in found if taken["shared"] > SHARED_LIMIT] == []
    assert [taken for taken in found if taken["stack"]] == []  # nothing spilled from the registers
