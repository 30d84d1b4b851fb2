"""The layer in vLLM's place, eager and compiled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eul_serve.engine.layer import UnlearningLayer
from eul_serve.engine.slot_table import SlotTable
from eul_serve.engine.slots import Slots
from eul_serve.engine.step import Step
from eul_serve.errors import EngineError
from eul_serve.format.weights import LayerWeights

WIDTH = 12
CPU = torch.device("cpu")


def make_layer(path: str, base: nn.Module, *, fixed_shape: bool = False) -> tuple[UnlearningLayer, LayerWeights]:
    table = SlotTable(2, 4, CPU)
    table.take(1, 3, "relu")
    layer = UnlearningLayer(
        path, base, Slots(2, 4, WIDTH, torch.float32, CPU), Step(table, 16, CPU, fixed_shape=fixed_shape)
    )
    generator = torch.Generator().manual_seed(1)
    weights = LayerWeights(
        torch.randn(3, WIDTH, generator=generator), torch.randn(WIDTH, 3, generator=generator), torch.ones(3)
    )
    layer.set_lora(1, weights, None)
    return layer, weights


@pytest.mark.parametrize("fixed_shape", [False, True])
@torch.inference_mode()
def test_adds_the_layer_to_the_rows_of_its_bundle(fixed_shape: bool) -> None:
    base = nn.Linear(WIDTH, WIDTH)
    layer, weights = make_layer("eager", base, fixed_shape=fixed_shape)
    rows = torch.randn(3, WIDTH)
    assert torch.equal(layer(rows), base(rows))  # no bundle in the batch yet
    layer.step.set_rows([1, -1, 1])
    expected = torch.stack([weights.apply(base(rows)[0]), base(rows)[1], weights.apply(base(rows)[2])])
    torch.testing.assert_close(layer(rows), expected, rtol=0, atol=1e-5)
    batched = layer(rows.unsqueeze(0))  # as vLLM's transformers backend calls it
    torch.testing.assert_close(batched, expected.unsqueeze(0), rtol=0, atol=1e-5)
    layer.reset_lora(1)
    torch.testing.assert_close(layer(rows), base(rows), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_one_compiled_graph_serves_every_choice_of_slots() -> None:
    base = nn.Linear(WIDTH, WIDTH)
    layer, weights = make_layer("compiled", base)
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(layer, backend=count, fullgraph=True)
    rows = torch.randn(2, WIDTH)
    for slots in ([-1, -1], [1, -1], [1, 1], [-1, -1]):
        layer.step.set_rows(slots)
        expected = torch.stack(
            [weights.apply(row) if slot == 1 else row for row, slot in zip(base(rows), slots, strict=True)]
        )
        torch.testing.assert_close(compiled(rows), expected, rtol=0, atol=1e-5)
    assert len(graphs) == 1


def test_a_module_that_returns_more_than_a_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, None]:
            return rows, None

    layer, _ = make_layer("pair", Pair())
    with pytest.raises(EngineError, match="module 'pair': expected one tensor, found tuple"):
        layer(torch.zeros(1, WIDTH))
