"""The PEFT model: puts an unlearning layer behind every feed-forward module."""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from eul_serve.errors import InputError
from eul_serve.peft.access import FFN_MODULES, ffn_modules
from eul_serve.peft.config import EulConfig
from eul_serve.peft.layer import EulLayer


class EulModel(BaseTuner):  # type: ignore[misc]  # peft has no types
    """A base model whose feed-forward modules are wrapped in `EulLayer`."""

    prefix = "eul_"
    tuner_layer_cls = EulLayer
    target_module_mapping = FFN_MODULES

    def _prepare_adapter_config(self, peft_config: EulConfig, model_config: dict[str, Any]) -> EulConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = ffn_modules(self.model)
        return peft_config

    def _create_and_replace(
        self,
        peft_config: EulConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        if isinstance(target, EulLayer):
            target.update_layer(adapter_name, peft_config, self.active_adapters)
            return
        if isinstance(target, BaseTunerLayer):
            raise InputError(
                f"module {current_key!r}: another PEFT method already wraps it; load the base model afresh"
            )
        layer = EulLayer(target, current_key, self._width())
        layer.train(target.training)
        layer.update_layer(adapter_name, peft_config, self.active_adapters)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's own goes by the one weight of the module, which a feed-forward module does not have.
        setattr(parent, child_name, new_module)

    def _width(self) -> int:
        config = getattr(self.model, "config", None)
        width = getattr(config, "hidden_size", None)
        if not isinstance(width, int):
            raise InputError(f"model {type(self.model).__name__}: expected a config with hidden_size, found {width!r}")
        return width
