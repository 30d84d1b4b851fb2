"""What `compat` does with vLLM's own objects, in the forms that they have from 0.26 to 0.33."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn
from vllm.model_executor.models.utils import PPMissingLayer, WeightsMapper

from eul_serve.engine.compat import count_unfinished, feed_forward_modules, map_module, missing_prefixes
from eul_serve.engine.model_manager import BundleModelManager
from eul_serve.errors import InputError

NAME = "model.layers.0.mlp"


class OlderMapper:
    """A mapper as it was before 0.29: the method has another name, and what it returns still drops weights."""

    def __init__(self, mapper: WeightsMapper) -> None:
        self.mapper = mapper

    def get_unstacked_mapper(self) -> WeightsMapper:
        return self.mapper


@pytest.mark.parametrize("wrap", [lambda mapper: mapper, OlderMapper], ids=["0.29", "0.26"])
@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ({"orig_to_new_prefix": {"model.": "language_model.model."}}, "language_model.model.layers.0.mlp"),
        ({"orig_to_new_prefix": {"model.": None}}, NAME),
        ({}, NAME),
    ],
)
def test_a_module_gets_the_path_that_vllm_has_for_it(wrap: Any, maps: dict[str, Any], expected: str) -> None:
    model: Any = SimpleNamespace(hf_to_vllm_mapper=wrap(WeightsMapper(**maps)))
    assert map_module(model, NAME) == expected


def test_a_model_without_a_mapper_keeps_the_names() -> None:
    assert map_module(nn.Linear(1, 1), NAME) == NAME


def test_a_map_of_merged_weights_changes_no_module() -> None:
    mapper = WeightsMapper(orig_to_new_stacked={".mlp": (".merged", 0)})
    model: Any = SimpleNamespace(hf_to_vllm_mapper=mapper)
    assert map_module(model, NAME) == NAME


def test_blocks_of_another_rank_are_left_out() -> None:
    blocks = nn.ModuleList([nn.ModuleDict({"mlp": nn.Linear(2, 2)}), PPMissingLayer()])
    model = nn.ModuleDict({"layers": blocks})
    manager: Any = SimpleNamespace(model=model, supports_mm=False)
    assert list(feed_forward_modules(manager)) == ["layers.0.mlp"]
    assert missing_prefixes(model) == ("layers.1.",)


def test_a_model_without_feed_forward_modules_is_for_plain_lora_alone() -> None:
    manager: Any = SimpleNamespace(model=nn.ModuleDict({"layers": nn.ModuleList([])}), layers={})
    with pytest.raises(InputError, match="model ModuleDict: expected a decoder made of blocks, found none"):
        BundleModelManager.check_blocks(manager)
    manager.layers = {"layers.0.mlp": object()}
    BundleModelManager.check_blocks(manager)


def test_unfinished_requests_are_counted_where_every_version_counts_them() -> None:
    processor = SimpleNamespace(get_num_unfinished_requests=lambda: 3)
    assert count_unfinished(SimpleNamespace(output_processor=processor)) == 3


def test_the_salt_is_part_of_the_key_of_a_cached_block() -> None:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys
    from vllm.v1.request import Request

    def keys(salt: str | None) -> Any:
        request = Request("id", [1, 2, 3], SamplingParams(max_tokens=1), None, cache_salt=salt)
        return generate_block_hash_extra_keys(request, 0, 2, 0)[0]

    assert keys("first") != keys("second")
    assert keys(None) is None
