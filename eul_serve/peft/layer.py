"""The unlearning layer: `y + U act(D y + b)` behind a feed-forward module. Its one home in PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from eul_serve.errors import InputError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS, LayerWeights
from eul_serve.peft.config import EulConfig

INIT_STD = 0.02
"""Standard deviation of a fresh D."""


class Observer(Protocol):
    """Sees what one layer computes, once per forward pass and active adapter."""

    def __call__(self, module: str, y: torch.Tensor, hidden: torch.Tensor, delta: torch.Tensor) -> None:
        """Take one layer's tensors, which are part of the autograd graph.

        Args:
            module: Path of the feed-forward module in the base model.
            y: Its output, (..., d), float32.
            hidden: `act(D y + b)`, (..., r), float32.
            delta: `U hidden`, (..., d), float32.
        """


class EulLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]  # peft has no types
    """A feed-forward module F with one unlearning layer per adapter behind it.

    The layers are float32 whatever the base model's dtype; the output has the base model's dtype. A fresh layer has
    U = 0 and b = 0, so it is exactly the base model. With several active adapters their deltas add up, each computed
    from the output of F, which is what a concatenated bundle computes.
    """

    adapter_layer_names = ("eul_down", "eul_up")
    other_param_names = ("activations",)
    # PEFT's own members, which mypy cannot see.
    active_adapters: list[str]
    disable_adapters: bool
    set_adapter: Callable[..., None]

    def __init__(self, base_layer: nn.Module, module_path: str, width: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.module_path = module_path
        self.width = width
        self.eul_down = nn.ModuleDict()
        self.eul_up = nn.ModuleDict()
        self.activations: dict[str, str] = {}
        self.observer: Observer | None = None
        self.unobserved: set[str] = set()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter_name: str, config: EulConfig, active: list[str]) -> None:
        """Add a fresh layer for an adapter.

        Args:
            adapter_name: Name of the adapter.
            config: Its settings.
            active: Names of the adapters that are active in the whole model.
        """
        device = next((parameter.device for parameter in self.base_layer.parameters()), torch.device("cpu"))
        # Linear draws its own values first; the caller's random state must not notice.
        with torch.random.fork_rng(devices=[]):
            down = nn.Linear(self.width, config.r, bias=config.hidden_bias, dtype=torch.float32)
            up = nn.Linear(config.r, self.width, bias=False, dtype=torch.float32)
        if not down.weight.is_meta:  # PEFT's low_cpu_mem_usage makes them without memory
            _reset(down, up, self.module_path, config.init_seed)
            if device.type != "meta":
                down, up = down.to(device), up.to(device)
        self.eul_down[adapter_name] = down
        self.eul_up[adapter_name] = up
        self.activations[adapter_name] = config.activation
        self.set_adapter(active, inference_mode=config.inference_mode)

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        """Return the feed-forward module's output with the active adapters' deltas added, (..., d)."""
        y = self.base_layer(*args, **kwargs)
        names = [] if self.disable_adapters else [name for name in self.active_adapters if name in self.eul_down]
        if not names:
            return y  # type: ignore[no-any-return]  # whatever the base module gives
        self._check_output(y)
        deltas = [self._delta(name, y) for name in names]
        output: torch.Tensor = (y + sum(deltas[1:], deltas[0])).to(y.dtype)
        return output

    def _delta(self, name: str, y: torch.Tensor) -> torch.Tensor:
        down, up = self._parts(name)
        wide = y.to(down.weight.dtype)
        hidden = ACTIVATION_FUNCTIONS[self.activations[name]](down(wide))
        delta: torch.Tensor = up(hidden)
        if self.observer is not None and name not in self.unobserved:
            self.observer(self.module_path, wide, hidden, delta)
        return delta

    def _check_output(self, y: object) -> None:
        if not isinstance(y, torch.Tensor):
            raise InputError(
                f"module {self.module_path!r}: expected its output to be one tensor, found {type(y).__name__}; "
                "EUL needs a block with a separate feed-forward module, and mixtures of experts have none"
            )
        if y.shape[-1] != self.width:
            raise InputError(
                f"module {self.module_path!r}: expected an output of width {self.width}, found {tuple(y.shape)}; "
                "target_modules must name the feed-forward modules"
            )

    def weights(self, adapter_name: str) -> LayerWeights:
        """Return an adapter's weights, detached and sharing memory with the parameters.

        Args:
            adapter_name: Name of the adapter.

        Returns:
            D (r, d), U (d, r) and b (r,), float32.
        """
        down, up = self._parts(adapter_name)
        bias = None if down.bias is None else down.bias.detach()
        return LayerWeights(down.weight.detach(), up.weight.detach(), bias, self.activations[adapter_name])

    def _parts(self, name: str) -> tuple[nn.Linear, nn.Linear]:
        return cast("nn.Linear", self.eul_down[name]), cast("nn.Linear", self.eul_up[name])

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: the layer is not linear, so no weights of the base model can hold it.

        Args:
            safe_merge: Not used.
            adapter_names: Not used.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "merging an unlearning layer is not possible: it is not linear; serve the bundle beside the base model, "
            "or take it off with unload()"
        )

    def unmerge(self) -> None:
        """Refuse, as nothing can have been merged.

        Raises:
            InputError: Always.
        """
        raise InputError("unmerging an unlearning layer is not possible: it is never merged")


@torch.no_grad()
def _reset(down: nn.Linear, up: nn.Linear, module_path: str, seed: int) -> None:
    # One stream per module path: neither the order of modules nor the number of blocks changes a layer's D.
    digest = hashlib.sha256(f"{seed}:{module_path}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    down.weight.copy_(torch.randn(down.weight.shape, generator=generator, dtype=torch.float32) * INIT_STD)
    if down.bias is not None:
        down.bias.zero_()
    up.weight.zero_()
