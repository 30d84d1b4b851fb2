"""What is trained: unlearning layers, a LoRA, or all weights. The objective does not know which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model

from eul_serve.errors import InputError
from eul_serve.format import Bundle, BundleConfig
from eul_trainer.forward.decoder import block_numbers, feed_forward_paths
from eul_trainer.model.adapter import fresh_layers
from eul_trainer.model.depth import ALL
from eul_trainer.model.load import LoadedModel, Network
from eul_trainer.settings import TRAINABLE, FitSettings

__all__ = ["LORA_MODULES", "TRAINABLE", "Trainable", "make_trainable"]

LORA_MODULES: dict[str, list[str]] = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "t5": ["q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"],
}
"""Last parts of the paths of the feed-forward and attention projections, by `model_type`."""
LLAMA_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""The same for every model with Llama's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainable:
    """A model in training, and which of its parameters train."""

    kind: str
    """layer, lora or full."""
    network: Network
    """What is run: a PEFT model, or for `full` the transformers model itself."""
    parameters: dict[str, torch.nn.Parameter]
    """The parameters that train, by name."""
    config: BundleConfig
    """Settings of the unlearning layers; used where `kind` is layer."""
    teacher_head: Callable[[torch.Tensor], torch.Tensor]
    """The base model's output head, from states (T, d) to logits (T, V), whatever the training does to the model's."""

    @contextmanager
    def off(self) -> Iterator[None]:
        """Have the base model while the context lasts.

        Yields:
            Nothing.

        Raises:
            InputError: All weights are trained, so the base model is gone.
        """
        if self.kind == "full":
            raise InputError("trainable 'full': the base model cannot be switched back on; load it afresh")
        with self.network.disable_adapter():
            yield


def make_trainable(model: LoadedModel, settings: FitSettings, below: Sequence[Bundle] = ()) -> Trainable:
    """Make a model trainable; until the first step it computes exactly what the base model does.

    Args:
        model: The base model; it is changed in place.
        settings: The run's settings.
        below: Bundles that stay on, frozen, while unlearning layers are trained.

    Returns:
        The model in training.

    Raises:
        InputError: There are bundles below what is no layer.
    """
    if below and settings.trainable != "layer":
        raise InputError(f"--on-top-of: expected --trainable layer, found {settings.trainable!r}; leave one out")
    config = _config(model, settings)
    head: Callable[[torch.Tensor], torch.Tensor] = model.network.get_output_embeddings()
    if settings.trainable == "layer":
        network = fresh_layers(model, config, settings.init_seed, below)
    elif settings.trainable == "lora":
        network = _lora(model, settings)
    else:
        head = _frozen(model.network.get_output_embeddings())
        network = model.network.requires_grad_(True)
    parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    return Trainable(kind=settings.trainable, network=network, parameters=parameters, config=config, teacher_head=head)


def _config(model: LoadedModel, settings: FitSettings) -> BundleConfig:
    return BundleConfig(
        rank=settings.rank,
        base_fingerprint=model.base.fingerprint,
        target_modules=_targets(model, settings),
        activation=settings.activation,
        task_type="SEQ_2_SEQ_LM" if model.encoder_decoder else "CAUSAL_LM",
    )


def _targets(model: LoadedModel, settings: FitSettings) -> tuple[str, ...]:
    """Return what names the wrapped modules: their last parts where every block has a layer, else their whole paths."""
    if settings.blocks == ALL:
        return model.targets
    return tuple(feed_forward_paths(model, settings.blocks))


def lora_config(model: LoadedModel, rank: int, blocks: str = ALL) -> LoraConfig:
    """Return the settings of a LoRA on a model's feed-forward and attention projections.

    Args:
        model: The base model.
        rank: Its rank, and its alpha, so that its output is not scaled.
        blocks: The blocks that get it.

    Returns:
        PEFT's settings.
    """
    names = LORA_MODULES.get(model.network.config.model_type, LLAMA_MODULES)
    present = {path.rpartition(".")[2] for path, _ in model.network.named_modules()}
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        fan_in_fan_out=model.network.config.model_type == "gpt2",  # its projections are stored transposed
        target_modules=[name for name in names if name in present],
        layers_to_transform=None if blocks == ALL else list(block_numbers(model, blocks)),
        task_type="SEQ_2_SEQ_LM" if model.encoder_decoder else "CAUSAL_LM",
    )


def _lora(model: LoadedModel, settings: FitSettings) -> Network:
    config = lora_config(model, settings.rank, settings.blocks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.init_seed)  # A is drawn, B is zero
        return get_peft_model(model.network, config).eval()


def _frozen(head: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    weight = head.weight.detach().clone()
    bias = None if head.bias is None else head.bias.detach().clone()
    return lambda states: torch.nn.functional.linear(states, weight, bias)
