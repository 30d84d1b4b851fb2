"""The layers by vLLM's own LoRA kernels.

In Triton 3.9's interpreter bfloat16 numbers are integers, and vLLM's second kernel adds them as such: only float16 is
tried.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.errors import InputError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS
from tests.eul_serve.engine.kernels import vllm_lora_ops
from tests.eul_serve.engine.kernels.kernel_cases import TOLERANCE, Case, Held, interpret

HELD = (Held(0, 16, "relu"), Held(2, 5, "gelu", bias=False), Held(3, 9, "silu"))
ROWS = (0, 3, 3, -1, 2, 0, 1, 1, -1)


def test_equals_the_reference(tmp_path: Path) -> None:
    case = Case("vllm", "vllm", HELD, ROWS, len(ROWS) + 3, dtype="float16")
    found = interpret([case], tmp_path)[case.name]
    torch.testing.assert_close(found, case.expected(), rtol=0, atol=TOLERANCE["float16"])
    kept = [row for row in range(len(found)) if row >= len(ROWS) or ROWS[row] < 0]
    assert torch.equal(found[kept], case.output()[kept])


def test_hidden_units_beyond_the_own_rank_become_zero() -> None:
    ranks, codes = torch.tensor([3, 0, 4]), torch.tensor([0, 1, 2])
    bias = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    bias[0, 3:] = torch.nan
    products = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    products[0, 3] = torch.inf
    hidden, slots = products.clone(), [0, 1, 2, 0, 2**30]
    vllm_lora_ops.activate_hidden(hidden, bias, ranks, codes, torch.tensor(slots, dtype=torch.int32))
    functions = list(ACTIVATION_FUNCTIONS.values())
    for row, slot in enumerate(slots[:4]):
        rank = int(ranks[slot])
        expected = functions[int(codes[slot])](products[row, :rank] + bias[slot, :rank].float())
        assert torch.equal(hidden[row, :rank], expected)
        assert not hidden[row, rank:].any()


def test_refuses_float32() -> None:
    nothing: Any = torch.zeros(1)
    with pytest.raises(InputError, match=r"dtype: expected torch\.bfloat16 or torch\.float16, found torch\.float32"):
        vllm_lora_ops.add_layers(
            torch.zeros(1, 8), nothing, nothing, nothing, nothing, nothing, nothing, nothing
        )  # fmt: skip
