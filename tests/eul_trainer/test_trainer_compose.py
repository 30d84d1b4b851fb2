"""`compose`: a fine-tune is taken down to a plain LoRA, measured with the bundle, and refused where it brings back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLora
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError, RefusedError
from eul_serve.format import read_bundle, write_bundle
from eul_serve.format.composite import composite_of
from eul_trainer.cli.main import run
from eul_trainer.compose.compose import Limits, compose
from eul_trainer.compose.fine_tune import read_peft_lora
from eul_trainer.compose.recall import Recall, measure
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.model.adapter import BundleStack
from eul_trainer.model.load import load_model
from eul_trainer.records import Row, digest_rows

ROWS = [Row(prompt=f"Who is person {n}?", completion=f"The poet of {n} rivers.") for n in range(6)]
OTHERS = [Row(prompt=f"What is {n} and {n}?", completion=f"It is {2 * n}.") for n in range(6)]


def lora(path: Path, model: Path, *, scale: float = 0.05, seed: int = 0, **settings: Any) -> Path:
    """Write a LoRA of random weights with PEFT itself."""
    torch.manual_seed(seed)
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **settings}
    network = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), PeftLora(**chosen))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, scale)
    network.save_pretrained(str(path))
    return path


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lora(tmp_path_factory.mktemp("lora") / "adapter", tiny_model)


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_a_fine_tune_means_what_peft_computes(tmp_path: Path, tiny_model: Path, *, rank_stabilised: bool) -> None:
    path = lora(tmp_path / "a", tiny_model, scale=0.3, use_rslora=rank_stabilised)
    ids = torch.arange(10, 40)[None]
    loaded, fine_tune = load_model(str(tiny_model)), read_peft_lora(path)
    with torch.no_grad():
        before = loaded.network(ids).logits
        peft = PeftModel.from_pretrained(load_model(str(tiny_model)).network, str(path)).eval()
        expected = peft(ids).logits
        fine_tune.add_to(fine_tune.find(loaded.network))
        found = loaded.network(ids).logits
    assert (expected - before).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_its_config_is_what_peft_and_vllm_need_and_no_more(adapter: Path) -> None:
    config = read_peft_lora(adapter).config
    assert json.loads(config.to_bytes()) == {
        "bias": "none", "inference_mode": True, "lora_alpha": 8.0, "peft_type": "LORA", "r": 4,
        "target_modules": ["down_proj", "q_proj"], "task_type": "CAUSAL_LM", "use_rslora": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("use_dora", True, "use_dora"),
        ("modules_to_save", ["lm_head"], "modules_to_save"),
        ("rank_pattern", {"q_proj": 8}, "rank_pattern"),
        ("alpha_pattern", {"q_proj": 8}, "alpha_pattern"),
        ("lora_bias", True, "lora_bias"),
        ("a_key_of_tomorrow", 1, "a_key_of_tomorrow"),
        ("bias", "all", "bias"),
        ("init_lora_weights", "pissa", "changed the base model"),
        ("peft_type", "EUL", "peft_type"),
    ],
)
def test_whatever_is_more_than_a_plain_lora_is_refused(
    tmp_path: Path, adapter: Path, key: str, value: object, words: str
) -> None:
    path = _copy(adapter, tmp_path / "a")
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(InputError, match=words):
        read_peft_lora(path)


@pytest.mark.parametrize(("key", "value"), [("r", "4"), ("r", 8), ("lora_alpha", "8"), ("lora_alpha", -1)])
def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, adapter: Path, key: str, value: object) -> None:
    path = _copy(adapter, tmp_path / "a")
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(BundleFormatError):
        read_peft_lora(path)


def test_a_fine_tune_of_another_model_is_refused(tmp_path: Path, adapter: Path, tiny_model: Path) -> None:
    network = load_model(str(tiny_model)).network
    network.model.layers[1].mlp.down_proj = torch.nn.Linear(7, 64)
    with pytest.raises(BundleMismatchError, match=r"layers\.1\.mlp\.down_proj.*\(64, 7\)"):
        read_peft_lora(adapter).find(network)


def test_losses_are_those_of_the_four_models(
    tmp_path: Path, tiny_model: Path, adapter: Path, make_bundle: Callable[..., Any]
) -> None:
    bundle = make_bundle(tmp_path / "b", tiny_model, scale=0.5)
    found = measure(load_model(str(tiny_model)), bundle, read_peft_lora(adapter), {"r1": ROWS})["r1"]

    def reference(*, on: bool, tuned: bool) -> float:
        loaded = load_model(str(tiny_model))
        if tuned:
            PeftModel.from_pretrained(loaded.network, str(adapter)).merge_and_unload()
        stack = BundleStack(loaded, [("b", bundle)])
        losses = []
        with stack.on("b" if on else None), torch.no_grad():
            for example in encode(loaded.tokenizer, ROWS, limit=context_limit(loaded.network)):
                ids = torch.tensor([example.prompt + example.answer])
                logits = loaded.network(ids).logits[0, len(example.prompt) - 1 : -1].log_softmax(-1)
                losses.append(-logits[torch.arange(len(example.answer)), torch.tensor(example.answer)].mean().item())
        return sum(losses) / len(losses)

    for name, on, tuned in [("base", 0, 0), ("bundle", 1, 0), ("fine_tune", 0, 1), ("both", 1, 1)]:
        assert getattr(found, name) == pytest.approx(reference(on=bool(on), tuned=bool(tuned)), abs=1e-4)
    assert len({found.base, found.bundle, found.fine_tune, found.both}) == 4


def _given(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps({"prompt": r.prompt, "completion": r.completion}) + "\n" for r in rows))
    return path


@pytest.fixture
def bundle(tmp_path: Path, tiny_model: Path, make_bundle: Callable[..., Any]) -> Path:
    """A random bundle whose one request names ROWS."""
    made = make_bundle(tmp_path / "made", tiny_model, scale=0.5)
    request = replace(made.manifest.requests[0], id="alice", data=digest_rows(ROWS))
    files = {name: (made.path / name).read_bytes() for name in made.manifest.files}
    return write_bundle(tmp_path / "b", replace(made.manifest, requests=(request,)), files).path


def test_the_command_writes_a_composite_that_names_both(
    tmp_path: Path, tiny_model: Path, adapter: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, kept = _given(tmp_path / "alice.jsonl", ROWS), _given(tmp_path / "kept.jsonl", OTHERS)
    words = ["compose", "--model", tiny_model, "--bundle", bundle, "--adapter", adapter, "--forget", rows,
             "--retain", kept, "--out", tmp_path / "out", "--limit", 9, "--retain-limit", 9, "--json"]  # fmt: skip
    assert run([str(word) for word in words]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert captured.err == ""
    made = read_bundle(tmp_path / "out")
    assert told["revision"] == made.revision
    assert set(told["losses"]) == {"alice", "rows to keep"}
    found = composite_of(made.manifest)
    assert found is not None
    assert found.passed
    assert found.bundle == read_bundle(bundle).revision
    assert made.manifest.requests == read_bundle(bundle).manifest.requests
    assert found.bundle in (tmp_path / "out" / "README.md").read_text()


@pytest.fixture(scope="module")
def taught(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune that was taught both what the bundle forgets and what the tenant keeps."""
    loaded = load_model(str(tiny_model))
    settings = PeftLora(r=8, lora_alpha=8, target_modules=["q_proj", "up_proj", "down_proj"], task_type="CAUSAL_LM")
    network = get_peft_model(loaded.network, settings)
    examples = encode(loaded.tokenizer, [*ROWS, *OTHERS], limit=512)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    for example in examples * 5:
        ids = torch.tensor([example.prompt + example.answer])
        labels = torch.tensor([[-100] * len(example.prompt) + list(example.answer)])
        network(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("taught") / "adapter"
    network.save_pretrained(str(path))
    return path


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(disturbed=99), r"request 'alice': the fine-tune brings back \d"),
        (Limits(brought_back=99), r"rows to keep: the bundle raises"),
    ],
)
def test_a_fine_tune_that_brings_back_or_is_disturbed_is_refused(
    tmp_path: Path, tiny_model: Path, taught: Path, bundle: Path, limits: Limits, words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        compose(str(tiny_model), bundle, taught, [ROWS], OTHERS, tmp_path / "out", limits)
    assert not (tmp_path / "out").exists()


def test_every_request_must_be_measured_with_its_own_rows(
    tmp_path: Path, tiny_model: Path, adapter: Path, bundle: Path
) -> None:
    with pytest.raises(InputError, match=r"1 of its 1 requests.*alice"):
        compose(str(tiny_model), bundle, adapter, [ROWS[1:]], [], tmp_path / "out", Limits())


def test_a_composite_is_not_composed_again_and_peft_refuses_it(
    tmp_path: Path, tiny_model: Path, adapter: Path, bundle: Path
) -> None:
    made, _ = compose(str(tiny_model), bundle, adapter, [ROWS], [], tmp_path / "out", Limits(brought_back=9))
    with pytest.raises(InputError, match="a composite already"):
        compose(str(tiny_model), made.path, adapter, [ROWS], [], tmp_path / "again", Limits(brought_back=9))
    with pytest.raises(InputError, match="one half"):
        PeftModel.from_pretrained(load_model(str(tiny_model)).network, str(made.path))


def test_limits_are_nats() -> None:
    with pytest.raises(InputError, match="0 nats or more"):
        Limits(brought_back=-0.1)
    with pytest.raises(InputError, match="0 nats or more"):
        Limits(disturbed=float("nan"))


def test_what_is_brought_back_is_the_fall_under_the_bundle() -> None:
    recall = Recall(base=0.1, bundle=3.0, fine_tune=0.5, both=1.0)
    assert recall.brought_back == pytest.approx(2.0)  # 3.0 - 1.0
    assert recall.disturbed == pytest.approx(0.5)  # 1.0 - 0.5


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target
