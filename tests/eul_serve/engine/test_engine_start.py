"""What is checked before and at the start of an engine, without starting one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from eul_serve.engine.base import ChatMessage
from eul_serve.engine.blocks import describe_blocks
from eul_serve.engine.checks import MANAGER, check_device, check_isolation, check_model, check_report
from eul_serve.engine.environment import environment, share_cores
from eul_serve.engine.manager import _check_module
from eul_serve.engine.plugin import PLUGIN_VERSION, register
from eul_serve.engine.probe import ARCHITECTURES, Probe, ProbeDirectory, compare, make_probe
from eul_serve.engine.prompts import Prompts
from eul_serve.engine.settings import EngineSettings, WorkerSettings
from eul_serve.engine.start import create_llm
from eul_serve.errors import BundleMismatchError, EngineError, InputError
from eul_serve.format import fingerprint
from eul_serve.format.weights import LayerWeights

MODULES = {"model.layers.0.mlp": 64, "model.layers.1.mlp": 64}  # the tiny model's


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8': expected one of float32, bfloat16, float16"),
        ({"max_context": 1}, "max_context: expected 2 or more, found 1"),
        ({"slots": 8, "capacity": 4}, "capacity: expected 8 or more, found 4"),
        ({"slots": 1, "capacity": 1}, "capacity: expected 2 or more, found 1"),
        ({"max_rank": 513}, "max_rank: expected 1 to 512, found 513"),
        ({"tensor_parallel": 0}, "tensor_parallel: expected 1 or more, found 0"),
        ({"max_batch_tokens": 63}, r"max_batch_tokens: expected max_batch \(64\) or more, found 63"),
        ({"kv_cache_gib": 0.0}, "kv_cache_gib: expected more than 0"),
    ],
)
def test_settings_name_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineSettings(model=Path("model"), **settings)


def test_maximum_rank_goes_up_to_the_next_that_vllm_knows() -> None:
    assert EngineSettings(model=Path("model"), max_rank=17).vllm_rank == 32
    assert EngineSettings(model=Path("model"), max_rank=512).vllm_rank == 512


def test_worker_settings_survive_the_way_to_the_worker() -> None:
    settings = WorkerSettings(plain_lora=False, bundles=Path("/cache"))
    assert WorkerSettings.from_config(json.loads(json.dumps(settings.to_config()))) == settings
    assert WorkerSettings.from_config({}) == WorkerSettings()
    assert WorkerSettings.from_config(None) == WorkerSettings()


def test_registering_twice_is_as_good_as_once_and_zero_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
    from vllm.v1.worker import lora_model_runner_mixin

    monkeypatch.setattr(lora_model_runner_mixin, "LRUCacheWorkerLoRAManager", LRUCacheWorkerLoRAManager)
    monkeypatch.setenv("EUL_PLUGIN", "0")
    register()
    assert lora_model_runner_mixin.LRUCacheWorkerLoRAManager is LRUCacheWorkerLoRAManager
    monkeypatch.delenv("EUL_PLUGIN")
    register()
    first = lora_model_runner_mixin.LRUCacheWorkerLoRAManager
    register()
    assert lora_model_runner_mixin.LRUCacheWorkerLoRAManager is first
    assert f"{first.__module__}.{first.__qualname__}" == MANAGER
    assert issubclass(first, LRUCacheWorkerLoRAManager)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("GPT2LMHeadModel", "no adapter support for GPT2LMHeadModel"),
        ("T5ForConditionalGeneration", "does not have T5ForConditionalGeneration"),
    ],
)
def test_models_that_cannot_carry_bundles_are_refused_in_words(tmp_path: Path, architecture: str, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    with pytest.raises(InputError, match=message):
        check_model(tmp_path)


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a local model directory"):
        check_model(tmp_path)


def test_a_llama_is_accepted(tiny_model: Path) -> None:
    check_model(tiny_model)


def test_blocks_without_a_feed_forward_module_are_described() -> None:
    block = nn.ModuleDict({"attention": nn.Linear(2, 2), "fc1": nn.Linear(2, 2), "fc2": nn.Linear(2, 2)})
    model = nn.ModuleDict({"layers": nn.ModuleList([block, block])})
    assert "found ModuleDict with attention, fc1, fc2" in describe_blocks(model)
    assert "found none" in describe_blocks(nn.Linear(2, 2))


def test_a_layer_for_no_module_or_of_another_width_is_refused() -> None:
    layers: Any = {"model.layers.0.mlp": SimpleNamespace(slots=SimpleNamespace(width=64))}
    layer = LayerWeights(torch.zeros(1, 32), torch.zeros(32, 1), None)
    with pytest.raises(BundleMismatchError, match=r"module 'model.layers.9.mlp': expected one of the model's 1"):
        _check_module(layers, "model.layers.9.mlp", layer)
    with pytest.raises(BundleMismatchError, match=r"module 'model.layers.0.mlp': width: expected 64, found 32"):
        _check_module(layers, "model.layers.0.mlp", layer)


def parallel(data: int = 1, pipeline: int = 1, *, sequence: bool = False) -> SimpleNamespace:
    return SimpleNamespace(data_parallel_size=data, pipeline_parallel_size=pipeline, use_sequence_parallel_moe=sequence)


def passes(**settings: bool) -> SimpleNamespace:
    """vLLM's settings of the compiler; `enable_sp` is among them until 0.31."""
    return SimpleNamespace(pass_config=SimpleNamespace(**settings))


def test_workers_on_a_cpu_get_equal_shares_of_its_cores() -> None:
    assert share_cores([0, 1, 4, 5], 2) == "0,1|4,5"
    assert share_cores([0, 1, 2], 2) == "0|1"
    assert share_cores([3], 2) == "3|3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speculative_config": object()}, "speculative decoding is on"),
        ({"kv_transfer_config": object()}, "external KV connector is on"),
        ({"parallel_config": parallel(data=2)}, "data parallelism is on"),
        ({"lora_config": None}, "adapters are off"),
        ({"compilation_config": passes(enable_sp=True)}, "sequence parallelism is on"),
        ({"parallel_config": parallel(sequence=True)}, "sequence parallelism is on"),
    ],
)
def test_settings_that_break_isolation_are_refused(change: dict[str, Any], message: str) -> None:
    config = {
        "speculative_config": None,
        "kv_transfer_config": None,
        "parallel_config": parallel(),
        "compilation_config": passes(),
        "lora_config": object(),
    }
    check_isolation(SimpleNamespace(**{**config, "compilation_config": passes(enable_sp=False)}))
    check_isolation(SimpleNamespace(**config))
    with pytest.raises(EngineError, match=message):
        check_isolation(SimpleNamespace(**{**config, **change}))


@pytest.mark.parametrize(
    ("pipeline", "experts", "message"),
    [(2, False, "pipeline parallelism: vLLM has no buffers for it on a CPU"), (1, True, "'/m': a mixture of experts")],
)
def test_what_a_cpu_cannot_do_is_refused(pipeline: int, experts: bool, message: str) -> None:
    def config(device: str, pipeline: int, experts: bool) -> SimpleNamespace:
        return SimpleNamespace(
            device_config=SimpleNamespace(device_type=device),
            parallel_config=parallel(pipeline=pipeline),
            model_config=SimpleNamespace(is_moe=experts, model="/m"),
        )

    check_device(config("cpu", 1, False))
    check_device(config("cuda", pipeline, experts))
    with pytest.raises(InputError, match=message):
        check_device(config("cpu", pipeline, experts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"manager": "vllm.lora.worker_manager.LRUCacheWorkerLoRAManager"}, "worker 1: .* the plugin is not live"),
        ({"plugin": "0"}, "worker 1: plugin version: expected .*, found 0"),
        ({"modules": {}}, "worker 1: expected wrapped modules"),
    ],
)
def test_a_worker_without_the_plugin_is_refused(change: dict[str, Any], message: str) -> None:
    report = {"manager": MANAGER, "plugin": PLUGIN_VERSION, "modules": MODULES}
    check_report(0, report)
    with pytest.raises(EngineError, match=message):
        check_report(1, {**report, **change})


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Probe:
    return make_probe(
        tmp_path_factory.mktemp("probe") / "bundle", EngineSettings(model=tiny_model), MODULES, fingerprint(tiny_model)
    )


def peft_logprobs(model: Path, bundle: Path, *, without: str | None = None) -> dict[int, float]:
    """Return the five most likely next tokens under a bundle, as transformers and PEFT compute them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import eul_serve.peft

    assert eul_serve.peft
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), str(bundle))
    if without is not None:
        layer = adapted.get_submodule(f"base_model.model.{without}")
        for parameter in layer.eul_up.parameters():
            parameter.data.zero_()
    with torch.no_grad():
        logits = adapted(torch.tensor([[3, 4, 5]])).logits[0, -1]
    top = torch.log_softmax(logits.double(), 0).topk(5)
    return dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def test_the_probe_s_closed_form_is_what_transformers_computes(probe: Probe, tiny_model: Path) -> None:
    compare(probe, peft_logprobs(tiny_model, probe.bundle.path))


@pytest.mark.parametrize("module", MODULES)
def test_a_block_that_does_not_run_fails_the_probe(probe: Probe, tiny_model: Path, module: str) -> None:
    with pytest.raises(EngineError, match="bundles are not applied"):
        compare(probe, peft_logprobs(tiny_model, probe.bundle.path, without=module))


def test_the_probe_is_not_degenerate(probe: Probe) -> None:
    assert float(probe.logprobs.max()) < -0.1  # no single token takes all
    with pytest.raises(EngineError, match="found none"):
        compare(probe, {})
    with pytest.raises(EngineError, match=r"expected .*, found nan"):
        compare(probe, {0: float("nan")})


def test_no_probe_for_a_layout_that_is_not_known(tmp_path: Path, tiny_model: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_model.iterdir():
        if file.name != "config.json":
            (model / file.name).symlink_to(file)
    config = json.loads((tiny_model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["Gemma2ForCausalLM"]}))
    with pytest.raises(InputError, match=f"expected one of {', '.join(ARCHITECTURES)}, found Gemma2ForCausalLM"):
        make_probe(tmp_path / "bundle", EngineSettings(model=model), MODULES, fingerprint(model))


def test_the_probe_s_directory_lies_in_the_cache_and_goes(tmp_path: Path) -> None:
    for root in (None, tmp_path / "cache"):
        with ProbeDirectory(root) as path:
            assert path.parent.is_dir()
            assert root is None or path.is_relative_to(root)
        assert not path.parent.exists()


@pytest.fixture(scope="module")
def prompts(tiny_model: Path) -> Prompts:
    return Prompts.load(tiny_model, 512, 16)


def test_text_messages_and_ids_become_tokens(prompts: Prompts) -> None:
    assert prompts.encode((5, 6)) == (5, 6)
    assert prompts.encode("The river") == tuple(prompts._tokenizer("The river")["input_ids"])
    chat = prompts.encode((ChatMessage(role="user", content="Paris"),))
    # From the template of tests/conftest.py: <|user|>Paris<|end|><|assistant|>
    assert prompts._tokenizer.decode(chat) == "<|user|>Paris<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "expected at least one token"),
        ((), "expected at least one token"),
        ((512,), "token id 512: expected 0 to 511"),
        ((-1,), "token id -1"),
        (tuple(range(16)), r"expected at most 15 tokens .* found 16; shorten the prompt"),
        ((ChatMessage(role="root", content="x"),), "role 'root': expected one of system, user, assistant"),
    ],
)
def test_prompts_that_are_refused(prompts: Prompts, prompt: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prompts.encode(prompt)


def test_messages_without_a_template_or_against_it_are_refused(tiny_model: Path) -> None:
    prompts = Prompts.load(tiny_model, 512, 64)
    message = (ChatMessage(role="user", content="x"),)
    prompts._tokenizer.chat_template = "{{ raise_exception('user comes second') }}"
    with pytest.raises(InputError, match="refuses them: user comes second"):
        prompts.encode(message)
    prompts._tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template; send the prompt as text"):
        prompts.encode(message)


def test_variables_for_the_workers_end_with_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EUL_SET", "mine")
    monkeypatch.delenv("EUL_NEW", raising=False)
    monkeypatch.setenv("EUL_HIDDEN", "kept")
    with environment({"EUL_SET": "theirs", "EUL_NEW": "1"}, without=["EUL_HIDDEN"]):
        assert (os.environ["EUL_SET"], os.environ["EUL_NEW"]) == ("mine", "1")
        assert "EUL_HIDDEN" not in os.environ
    assert os.environ["EUL_HIDDEN"] == "kept"
    with environment({}, without=["EUL_NEW"]):
        assert "EUL_NEW" not in os.environ
    assert os.environ["EUL_SET"] == "mine"
    assert "EUL_NEW" not in os.environ


def test_an_engine_in_eager_mode_leaves_this_process_its_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    with pytest.raises(InputError, match="engine settings"):
        create_llm(EngineSettings(model=tmp_path))  # no model: vLLM refuses it, after the variable was set
    assert "TORCHDYNAMO_DISABLE" not in os.environ
