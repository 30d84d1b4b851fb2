"""What the front end asks of every worker at start, through vLLM's worker extension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from eul_serve.engine.plugin import PLUGIN_VERSION
from eul_serve.engine.slot_table import SlotTable
from eul_serve.format.weights import ACTIVATION_FUNCTIONS, LayerWeights

_ROWS = 6
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference of a layer's output from the reference, with values of order one."""


class WorkerExtension:
    """Mixed into vLLM's worker class; every method runs in every rank."""

    model_runner: Any

    def eul_report(self) -> dict[str, Any]:
        """Return the plugin's version, the manager's class, each module's width, the kernels by shape, the slots."""
        manager = getattr(self.model_runner, "lora_manager", None)
        inner = getattr(manager, "_adapter_manager", None)
        layers = getattr(inner, "layers", {})
        step = getattr(inner, "step", None)
        return {
            "plugin": PLUGIN_VERSION,
            "manager": f"{type(manager).__module__}.{type(manager).__qualname__}",
            "modules": {path: layer.slots.width for path, layer in layers.items()},
            "slots": list(getattr(inner, "lora_index_to_id", ())),
            "kernels": {} if step is None else {str(shape): name for shape, name in step.fastest.items()},
        }

    def eul_check_layers(self) -> dict[str, float]:
        """Run every wrapped module's arithmetic against the reference; return those that differ, with how much.

        Runs before any bundle is loaded, in slot 0.
        """
        wrong = {}
        for path, layer in self.model_runner.lora_manager._adapter_manager.layers.items():
            difference = max(_difference(layer, name) for name in ACTIVATION_FUNCTIONS)
            if not difference <= TOLERANCE[layer.slots.down.dtype]:
                wrong[path] = difference
        return wrong

    def eul_stage(self, path: str) -> None:
        """Begin to read a bundle in a thread; decoding goes on."""
        self.model_runner.lora_manager.staging.start(Path(path))

    def eul_staged(self, path: str) -> dict[str, float] | str | None:
        """Return None while a bundle is read, then its stages' seconds, or the error's words."""
        state: dict[str, float] | str | None = self.model_runner.lora_manager.staging.state(Path(path))
        return state

    def eul_hold_slot(self, adapter: int, held: bool) -> None:
        """Have an adapter keep a slot of its own, or let it go again."""
        self.model_runner.lora_manager._adapter_manager.hold_slot(adapter, held=held)

    def eul_deny_base(self, deny: bool) -> None:
        """Refuse from now on every scheduled row without a bundle; vLLM's warm-up runs are over."""
        self.model_runner.lora_manager._adapter_manager.deny_base = deny


def _difference(layer: Any, activation: str) -> float:  # noqa: ANN401  # the layer's class needs vLLM
    """Compare one layer with `LayerWeights.apply` on rows with and without a bundle."""
    slots = layer.slots
    generator = torch.Generator().manual_seed(0)
    rank = min(slots.max_rank, 8)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(slots.down)

    weights = LayerWeights(
        draw(rank, slots.width) / slots.width**0.5, draw(slots.width, rank) / rank, draw(rank), activation
    )
    rows = draw(_ROWS, slots.width)
    table = SlotTable(len(layer.step.table), slots.max_rank, slots.down.device)
    table.take(0, rank, activation)
    step = layer.step.alike(table, _ROWS)
    step.set_rows([0, -1, 0, 0, -1, 0])
    slots.put(0, weights)
    found = rows.clone()
    layer.add_layers(found, step)
    slots.clear(0)
    expected = torch.where(
        torch.tensor([[1], [0], [1], [1], [0], [1]], device=rows.device) > 0, weights.apply(rows), rows
    )
    return float((found.float() - expected.float()).abs().max())
