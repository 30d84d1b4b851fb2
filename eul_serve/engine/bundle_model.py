"""A bundle in the form in which vLLM's caches hold adapters."""

from __future__ import annotations

from eul_serve.engine.compat import LoRAModel
from eul_serve.format.weights import LayerWeights


class SlotWeights:
    """One layer under the names that vLLM looks for."""

    def __init__(self, layer: LayerWeights) -> None:
        """Hold a layer."""
        self.lora_a, self.lora_b = layer, None


class BundleModel(LoRAModel):  # type: ignore[misc]  # vLLM is not typed
    """A bundle as vLLM's caches hold it."""

    # The names are vLLM's, which makes copies of an adapter with them.
    def __init__(self, lora_model_id: int, rank: int, loras: dict[str, SlotWeights], activation: str = "relu") -> None:
        """Take the layers, by path of the module in the worker's model."""
        super().__init__(lora_model_id, rank, loras)
        self.activation = activation


class WarmUpModel(BundleModel):
    """A warm-up adapter: both kinds of layer see its rows, so that graphs are recorded with both."""
