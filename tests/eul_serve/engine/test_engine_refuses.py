"""An engine whose workers do not run the plugin does not serve."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eul_serve.engine.settings import EngineSettings
from eul_serve.errors import EngineError


@pytest.mark.engine
async def test_workers_without_the_plugin_are_found_at_start(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eul_serve.engine.vllm_engine import VllmEngine

    monkeypatch.setenv("EUL_PLUGIN", "0")  # workers inherit it; this process need not care
    with pytest.raises(EngineError, match="the plugin is not live"):
        await VllmEngine.start(EngineSettings(model=tiny_model, max_context=128, slots=1, kv_cache_gib=0.1))


def test_vllm_s_cpu_operators_still_give_rows_without_an_adapter_the_last_slot() -> None:
    """The reason for the spare slot in the ledger of compat.py; when this fails, the spare slot can go."""
    from vllm.lora.ops.torch_ops import bgmv_expand

    output = torch.zeros(1, 2)
    bgmv_expand(torch.ones(1, 1), torch.tensor([[[0.0], [0.0]], [[7.0], [7.0]]]), output, torch.tensor([-1]))
    assert output.tolist() == [[7.0, 7.0]]  # should be zero
