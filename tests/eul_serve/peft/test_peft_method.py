"""EUL in PEFT: registration, round trips, the arithmetic, several adapters, and what is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.peft_types import PeftType
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel, T5Config
from transformers import T5ForConditionalGeneration as T5

from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError
from eul_serve.format import Bundle, BundleConfig, fingerprint
from eul_serve.format.weights import LayerWeights, dump_layers, load_layers
from eul_serve.peft import EulConfig, EulModel, eul_layers, ffn_modules, layers_of, load, observe, register

IDS = torch.arange(24).reshape(2, 12)
FINGERPRINT = "sha256:" + 64 * "a"

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def base(tiny_model: Path) -> PreTrainedModel:
    """A fresh copy of the tiny model; PEFT changes models in place."""
    return AutoModelForCausalLM.from_pretrained(tiny_model)


@torch.no_grad()
def logits(model: nn.Module, **kwargs: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS, **kwargs).logits
    return found


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0, adapter: str = "default") -> None:
    generator = torch.Generator().manual_seed(seed)
    for layer in layers_of(model, adapter).values():
        layer.up.copy_(torch.randn(layer.up.shape, generator=generator))


def plain_forward(model: PreTrainedModel, layers: dict[str, LayerWeights]) -> torch.Tensor:
    """Logits of a model without PEFT whose feed-forward outputs pass through the format's reference arithmetic."""
    hooks = [
        model.get_submodule(path).register_forward_hook(lambda _m, _i, output, layer=layer: layer.apply(output))
        for path, layer in layers.items()
    ]
    try:
        return logits(model)
    finally:
        for hook in hooks:
            hook.remove()


def test_registration_is_idempotent() -> None:
    before = list(PeftType)
    register()
    register()
    assert list(PeftType) == before
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType("EUL")] is EulConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.EUL] is EulModel
    assert PeftType.EUL == "EUL"
    assert pickle.loads(pickle.dumps(PeftType.EUL)) is PeftType.EUL


def test_a_method_of_another_package_is_not_replaced() -> None:
    PEFT_TYPE_TO_TUNER_MAPPING[PeftType.EUL] = dict
    try:
        with pytest.raises(InputError, match="already registered by builtins"):
            register()
    finally:
        PEFT_TYPE_TO_TUNER_MAPPING[PeftType.EUL] = EulModel


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_a_fresh_layer_is_exactly_the_base(base: PreTrainedModel, activation: str) -> None:
    expected = logits(base)
    model = get_peft_model(base, EulConfig(r=4, activation=activation))
    assert torch.equal(logits(model), expected)


def test_fresh_layers_share_their_seed_and_leave_the_random_state_alone(tiny_model: Path) -> None:
    def downs(seed: int) -> list[torch.Tensor]:
        network = AutoModelForCausalLM.from_pretrained(tiny_model)
        state = torch.get_rng_state()
        model = get_peft_model(network, EulConfig(r=4, init_seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
        return [layer.down for layer in layers_of(model).values()]

    first, again, other = downs(0), downs(0), downs(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_a_fresh_down_projection_has_the_stated_deviation() -> None:
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=256, n_layer=1, n_head=2)
    model = get_peft_model(GPT2LMHeadModel(config), EulConfig(r=256))
    (layer,) = layers_of(model).values()
    # 65536 values: the deviation of their deviation is 0.02 / sqrt(2 * 65536) = 5.5e-5; five of them are 2.8e-4.
    assert layer.down.std().item() == pytest.approx(0.02, abs=2.8e-4)
    assert layer.bias is not None
    assert not layer.bias.any()
    assert not layer.up.any()


@pytest.mark.parametrize("hidden_bias", [True, False])
@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_round_trip_is_byte_equal(
    tiny_model: Path, tmp_path: Path, make_bundle: MakeBundle, hidden_bias: bool, low_cpu_mem_usage: bool
) -> None:
    bundle = make_bundle(tmp_path / "bundle", tiny_model, hidden_bias=hidden_bias, activation="silu")
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(network, bundle.path, low_cpu_mem_usage=low_cpu_mem_usage)
    model.save_pretrained(tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (bundle.path / name).read_bytes()
    assert dump_layers(layers_of(model)) == bundle.weights.read_bytes()
    assert isinstance(PeftConfig.from_pretrained(str(bundle.path)), EulConfig)


def test_trained_layers_are_saved_in_the_format(base: PreTrainedModel, tiny_model: Path, tmp_path: Path) -> None:
    config = EulConfig(r=4, base_fingerprint=fingerprint(tiny_model))
    model = get_peft_model(base, config)
    fill(model)
    model.save_pretrained(tmp_path)
    expected = BundleConfig(rank=4, base_fingerprint=fingerprint(tiny_model))
    assert (tmp_path / "adapter_config.json").read_bytes() == expected.to_bytes()
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == dump_layers(layers_of(model))


@pytest.mark.parametrize(("activation", "hidden_bias"), [("relu", True), ("gelu", False), ("silu", True)])
def test_logits_equal_the_reference_arithmetic(
    base: PreTrainedModel, tiny_model: Path, tmp_path: Path, make_bundle: MakeBundle, activation: str, hidden_bias: bool
) -> None:
    bundle = make_bundle(tmp_path / "b", tiny_model, scale=1.0, activation=activation, hidden_bias=hidden_bias)
    expected = plain_forward(base, load_layers(bundle))
    assert not torch.allclose(expected, logits(base), atol=0.1)
    assert torch.equal(logits(PeftModel.from_pretrained(base, bundle.path)), expected)


def test_adapters_switch_add_up_and_turn_off(
    base: PreTrainedModel, tiny_model: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    one, two = (make_bundle(tmp_path / f"b{n}", tiny_model, rank=n, seed=n, scale=1.0) for n in (2, 5))
    plain = logits(base)
    alone = [plain_forward(base, load_layers(bundle)) for bundle in (one, two)]
    model = PeftModel.from_pretrained(base, one.path, adapter_name="one")
    model.load_adapter(two.path, adapter_name="two")
    for name, expected in zip(("one", "two"), alone, strict=True):
        model.set_adapter(name)
        assert torch.equal(logits(model), expected)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), alone[1])

    model.base_model.set_adapter(["one", "two"])
    beside = concatenated(load_layers(one), load_layers(two))
    torch.testing.assert_close(logits(model), plain_forward(model.unload(), beside))


def concatenated(one: dict[str, LayerWeights], two: dict[str, LayerWeights]) -> dict[str, LayerWeights]:
    def join(a: LayerWeights, b: LayerWeights) -> LayerWeights:
        assert a.bias is not None
        assert b.bias is not None
        return LayerWeights(torch.cat([a.down, b.down]), torch.cat([a.up, b.up], dim=1), torch.cat([a.bias, b.bias]))

    return {path: join(one[path], two[path]) for path in one}


def test_unload_gives_the_base_back_and_delete_takes_one_adapter(base: PreTrainedModel) -> None:
    expected = logits(base)
    model = get_peft_model(base, EulConfig(r=4))
    model.add_adapter("other", EulConfig(r=2, activation="gelu"))
    fill(model)
    model.delete_adapter("other")
    assert all(set(layer.activations) == {"default"} for layer in eul_layers(model).values())
    assert torch.equal(logits(model.unload()), expected)


def test_merging_is_refused_in_words(base: PreTrainedModel) -> None:
    model = get_peft_model(base, EulConfig(r=4))
    with pytest.raises(InputError, match="it is not linear"):
        model.merge_and_unload()
    with pytest.raises(InputError, match="never merged"):
        model.unmerge_adapter()


def test_a_bfloat16_base_keeps_float32_layers(tiny_model: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(tmp_path / "b", tiny_model, scale=1.0)
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    expected = plain_forward(network, load_layers(bundle))
    model = PeftModel.from_pretrained(network, bundle.path)
    assert {p.dtype for layer in layers_of(model).values() for p in (layer.down, layer.up)} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16
    assert torch.equal(logits(model), expected)
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == bundle.weights.read_bytes()


def test_only_the_layers_train(base: PreTrainedModel) -> None:
    model = get_peft_model(base, EulConfig(r=4))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 3
    assert all(".eul_" in name for name in trained)
    before = dump_layers(layers_of(model))
    fill(model)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert dump_layers(layers_of(model)) != before


def test_an_observer_sees_what_the_layers_compute(base: PreTrainedModel) -> None:
    model = get_peft_model(base, EulConfig(r=4))
    fill(model)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def watch(module: str, y: torch.Tensor, hidden: torch.Tensor, delta: torch.Tensor) -> None:
        seen[module] = (y, hidden, delta)

    with observe(model, watch):
        with model.disable_adapter():
            logits(model)
        assert not seen
        model(input_ids=IDS)
        with pytest.raises(InputError, match="another observer"), observe(model, watch):
            pass
    assert seen.keys() == layers_of(model).keys()
    for path, layer in layers_of(model).items():
        y, hidden, delta = seen[path]
        assert hidden.shape == (2, 12, 4)
        assert delta.requires_grad
        torch.testing.assert_close((y + delta).detach(), layer.apply(y.detach()))
        torch.testing.assert_close(delta, hidden @ layer.up.T)
    seen.clear()
    logits(model)
    assert not seen


def test_gpt2_and_t5_layouts() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)).eval()
    expected = logits(gpt2)
    model = get_peft_model(gpt2, EulConfig(r=2))
    assert torch.equal(logits(model), expected)
    assert sorted(layers_of(model)) == ["transformer.h.0.mlp", "transformer.h.1.mlp"]

    t5 = T5(T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)).eval()
    expected = logits(t5, decoder_input_ids=IDS)
    model = get_peft_model(t5, EulConfig(r=2, task_type="SEQ_2_SEQ_LM"))
    assert torch.equal(logits(model, decoder_input_ids=IDS), expected)
    assert len(layers_of(model)) == 4
    assert "encoder.block.0.layer.1.DenseReluDense" in layers_of(model)
    fill(model)
    assert not torch.equal(logits(model, decoder_input_ids=IDS), expected)


def test_an_unknown_model_type_is_named() -> None:
    config = GPT2Config()
    config.model_type = "mamba"
    network = nn.Linear(2, 2)
    network.config = config
    with pytest.raises(InputError, match=r"model type 'mamba': .*supported are .*llama.*set target_modules"):
        ffn_modules(network)


class Mixture(nn.Module):
    """Stands in for a mixture of experts, whose block gives its output and the router's logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inner(x), x


def test_a_module_without_one_tensor_is_named(base: PreTrainedModel) -> None:
    base.model.layers[1].mlp = Mixture(base.model.layers[1].mlp)
    model = get_peft_model(base, EulConfig(r=2))
    with pytest.raises(InputError, match=r"module 'model.layers.1.mlp': expected .* one tensor, found tuple"):
        logits(model)


def test_a_module_of_another_width_is_named(base: PreTrainedModel) -> None:
    model = get_peft_model(base, EulConfig(r=2, target_modules=["gate_proj"]))
    with pytest.raises(InputError, match=r"module 'model.layers.0.mlp.gate_proj': expected an output of width 64"):
        logits(model)


def test_a_model_without_a_width_is_refused() -> None:
    with pytest.raises(InputError, match="expected a config with hidden_size"):
        get_peft_model(nn.Sequential(nn.Linear(2, 2)), EulConfig(r=2, target_modules=["0"]))


def test_another_method_on_the_same_module_is_refused(base: PreTrainedModel) -> None:
    lora = get_peft_model(base, LoraConfig(r=2, target_modules=["gate_proj"]))
    del lora.base_model.model.peft_config  # PEFT warns of a second method before it gets to ours
    with pytest.raises(InputError, match="another PEFT method"):
        EulModel(lora.base_model.model, {"eul": EulConfig(r=2, target_modules=["gate_proj"])}, "eul")


def test_lora_code_refuses_a_bundle(tiny_model: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(tmp_path / "b", tiny_model)
    # A process that never heard of eul_serve: PEFT finds no method of that type and loads nothing.
    code = f"from peft import LoraConfig; LoraConfig.from_pretrained({str(bundle.path)!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode != 0
    assert "KeyError: 'EUL'" in result.stderr


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"r": 0}, BundleFormatError, "rank r: expected 1 to 4096, found 0"),
        ({"r": "16"}, BundleFormatError, "rank r"),
        ({"activation": "tanh"}, BundleFormatError, "activation: expected one of relu"),
        ({"task_type": "SEQ_CLS"}, BundleFormatError, "task_type: expected one of CAUSAL_LM"),
        ({"bias": "all"}, BundleFormatError, "bias 'none'"),
        ({"format_version": 2}, BundleFormatError, "format_version 1"),
        ({"base_fingerprint": "abc"}, BundleFormatError, "base_fingerprint"),
        ({"target_modules": ["../mlp"]}, BundleFormatError, "target_modules"),
    ],
)
def test_bad_settings(settings: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        EulConfig(**settings)  # type: ignore[arg-type]  # wrong types are the point


def test_saving_needs_a_fingerprint_and_targets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"base_fingerprint: .*fingerprint\(MODEL_DIR\)"):
        EulConfig(target_modules="mlp").save_pretrained(str(tmp_path / "out"))
    with pytest.raises(InputError, match="target_modules: expected module names"):
        EulConfig(base_fingerprint=FINGERPRINT).save_pretrained(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    EulConfig(base_fingerprint=FINGERPRINT, target_modules="mlp").save_pretrained(str(tmp_path / "out"))
    assert EulConfig.from_pretrained(str(tmp_path / "out")).r == 16


def test_an_edited_config_is_refused_by_peft(tiny_model: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(tmp_path / "b", tiny_model)
    path = bundle.path / "adapter_config.json"
    path.write_bytes(path.read_bytes().replace(b'"r": 4', b'"r": 5000'))
    with pytest.raises(BundleFormatError, match="found 5000"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), bundle.path)


def test_load_checks_the_base_model(
    base: PreTrainedModel, tiny_model: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    bundle = make_bundle(tmp_path / "b", tiny_model, scale=1.0)
    model = load(tiny_model, bundle.path)
    assert torch.equal(logits(model), plain_forward(base, load_layers(bundle)))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    other = tmp_path / "other"
    base.save_pretrained(other)
    config = json.loads((other / "config.json").read_bytes())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    with pytest.raises(BundleMismatchError, match="made for base model"):
        load(other, bundle.path)


def test_an_unknown_adapter_has_no_layers(base: PreTrainedModel) -> None:
    with pytest.raises(InputError, match="adapter 'nobody'"):
        layers_of(get_peft_model(base, EulConfig(r=2)), "nobody")
