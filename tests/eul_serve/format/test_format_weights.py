"""Layers as tensors: the reference arithmetic, and bytes that safetensors itself writes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from eul_serve.format.weights import ACTIVATION_FUNCTIONS, LayerWeights, dump_layers


def random_layer(rank: int, width: int, activation: str = "relu", bias: bool = True) -> LayerWeights:
    generator = torch.Generator().manual_seed(rank * 100 + width)
    return LayerWeights(
        torch.randn(rank, width, generator=generator),
        torch.randn(width, rank, generator=generator),
        torch.randn(rank, generator=generator) if bias else None,
        activation,
    )


@given(
    rank=st.integers(1, 8),
    width=st.integers(1, 8),
    activation=st.sampled_from(sorted(ACTIVATION_FUNCTIONS)),
    bias=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_the_reference_arithmetic(rank: int, width: int, activation: str, bias: bool) -> None:
    layer = random_layer(rank, width, activation, bias)
    y = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    unit = y @ layer.down.T + (0 if layer.bias is None else layer.bias)
    expected = y + ACTIVATION_FUNCTIONS[activation](unit) @ layer.up.T
    torch.testing.assert_close(layer.apply(y), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_result_is_rounded_once_to_the_dtype_of_the_output(dtype: torch.dtype) -> None:
    layer = random_layer(4, 8)
    y = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert layer.apply(y).dtype == dtype
    assert torch.equal(layer.apply(y), layer.apply(y.float()).to(dtype))


def test_dumped_bytes_are_those_of_safetensors() -> None:
    layers = {"b.mlp": random_layer(2, 3), "a.mlp": random_layer(2, 4, bias=False)}
    tensors = {
        "base_model.model.b.mlp.eul_down.weight": layers["b.mlp"].down,
        "base_model.model.b.mlp.eul_down.bias": layers["b.mlp"].bias,
        "base_model.model.b.mlp.eul_up.weight": layers["b.mlp"].up,
        "base_model.model.a.mlp.eul_down.weight": layers["a.mlp"].down,
        "base_model.model.a.mlp.eul_up.weight": layers["a.mlp"].up,
    }
    assert dump_layers(layers) == save(tensors, metadata={"format": "pt"})


def test_transposed_weights_are_dumped_as_they_read() -> None:
    layer = random_layer(2, 3)
    transposed = LayerWeights(layer.down.T.contiguous().T, layer.up, layer.bias)
    assert dump_layers({"mlp": transposed}) == dump_layers({"mlp": layer})
