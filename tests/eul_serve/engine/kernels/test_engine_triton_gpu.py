"""Our kernels on a GPU: what the interpreter cannot show. Compiled code, recorded graphs, copies nobody waits for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from eul_serve.engine.kernels.tiles import Tiles
from eul_serve.engine.slot_table import SlotTable
from eul_serve.engine.slots import Slots
from tests.eul_serve.engine.kernels.kernel_cases import TOLERANCE, Case, Held, run
from tests.eul_serve.engine.kernels.test_engine_triton_parity import ALONE, CASES, HELD, KERNELS, ROWS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
WIDE = Case("wide", "", (*HELD, Held(1, 60, "gelu")), ROWS, len(ROWS), "bfloat16", width=4096, max_rank=64)
VLLM = Case("vllm", "vllm", HELD, ROWS, len(ROWS) + 3, "bfloat16", width=192)


def on_gpu(case: Case) -> torch.Tensor:
    return run(case, torch.device("cuda"))


@pytest.mark.parametrize("name", [*(name for name in CASES if not name.endswith("overflow")), "vllm"])
def test_equals_the_reference(name: str) -> None:
    case = CASES.get(name, VLLM)
    torch.testing.assert_close(on_gpu(case), case.expected(), rtol=0, atol=2 * TOLERANCE[case.dtype])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(kernel: str) -> None:
    together = on_gpu(replace(WIDE, kernel=kernel))
    for row in ALONE:
        rows = tuple(slot if place == row else -1 for place, slot in enumerate(ROWS))
        assert torch.equal(on_gpu(replace(WIDE, kernel=kernel, rows=rows))[row], together[row])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_recorded_graph_follows_the_batch(kernel: str) -> None:
    from eul_serve.engine.kernels import triton_fused, triton_split

    device, case = torch.device("cuda"), replace(WIDE, dtype="float32", width=576)
    slots = Slots(case.slots, case.max_rank, case.width, torch.float32, device)
    table = SlotTable(case.slots, case.max_rank, device)
    for held in case.held:
        slots.put(held.slot, case.layer(held))
        table.take(held.slot, held.rank, held.activation)
    tiles = Tiles(case.slots, 64, 16, device)
    scratch = triton_split.make_scratch(64, case.max_rank, device)
    output = torch.empty(case.output_rows, case.width, device=device)

    def add() -> None:
        weights = (slots.down, slots.bias, slots.up, table.device_ranks, table.device_codes)
        if kernel == "fused":
            triton_fused.add_layers(output, *weights, tiles)
        else:
            triton_split.add_layers(output, *weights, tiles, scratch)

    add()  # compiled before it is recorded; there is no work yet
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        add()
    batches = [tuple(np.roll(ROWS, shift)) for shift in range(6)]
    results = []
    for rows in batches:  # no wait between steps: staging memory must not be written while it is read
        output.copy_(case.output())
        tiles.fill(np.array(rows, dtype=np.int64))
        graph.replay()
        results.append(output.clone())
    for rows, result in zip(batches, results, strict=True):
        expected = replace(case, rows=rows).expected()
        torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=2 * TOLERANCE["float32"])
