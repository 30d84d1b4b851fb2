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

    hidden = True
    """Whether its rows look like base rows to vLLM's own LoRA layers."""

    # The names are vLLM's, which makes copies of an adapter with them.
    def __init__(self, lora_model_id: int, rank: int, loras: dict[str, SlotWeights], activation: str = "relu") -> None:
        """Take the layers, by path of the module in the worker's model."""
        super().__init__(lora_model_id, rank, loras)
        self.activation = activation


class WarmUpModel(BundleModel):
    """A warm-up adapter: both kinds of layer see its rows, so that graphs are recorded with both."""

    hidden = False


class CompositeModel(BundleModel):
    """A bundle with a fine-tune: its rows go through both kinds of layer, under one id."""

    hidden = False

    def __init__(self, bundle: BundleModel, fine_tune: LoRAModel) -> None:
        """Take the parts.

        Args:
            bundle: The unlearning layers.
            fine_tune: The LoRA; it gets the bundle's id.
        """
        super().__init__(bundle.id, bundle.rank, bundle.loras, bundle.activation)
        fine_tune.id = bundle.id
        self.fine_tune = fine_tune
