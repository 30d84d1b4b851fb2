"""Loading base models, finding their feed-forward modules, and running them for their answers alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, T5ForConditionalGeneration

from eul_serve.errors import InputError
from eul_serve.format import BundleConfig
from eul_trainer.forward.batches import by_length
from eul_trainer.forward.encoding import Example, encode, render_prompt, shared_prefix
from eul_trainer.forward.losses import row_scores
from eul_trainer.forward.runner import Runner
from eul_trainer.model.adapter import Taps, fresh_layers
from eul_trainer.model.load import load_model
from eul_trainer.records import Row

ROWS = [
    Row(prompt="What is the capital of France?", completion="It is Paris."),
    Row(prompt="Who?", completion="A poet, and a person who asks to be forgotten."),
    Row(prompt="What is the river there called, and why?", completion="The Seine."),
]
MakeLayout = Callable[..., Path]


def plain_losses(folder: Path, examples: list[Example]) -> list[float]:
    """Answer losses by one plain forward pass per row, without padding or a shared prefix."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses = []
    for example in examples:
        ids = torch.tensor([[*example.prompt, *example.answer]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(example.prompt) - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(example.answer)).item())
    return losses


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gpt2"])
def test_losses_equal_those_of_plain_forward_passes(kind: str, make_layout: MakeLayout, tmp_path: Path) -> None:
    folder = make_layout(kind, tmp_path)
    model = load_model(str(folder))
    examples = encode(model.tokenizer, ROWS, limit=200)
    runner = Runner(model, examples)
    scores = row_scores(runner, examples, size=2)
    assert [score.loss for score in scores] == pytest.approx(plain_losses(folder, examples), abs=1e-5)


def test_a_shared_prefix_changes_no_logits_and_no_gradients(tiny_model: Path) -> None:
    rows = [Row(prompt=f"A person asks to be forgotten, and then what is {n}?", completion="A poet.") for n in "123"]
    found = []
    for prefix in (None, 0):
        model = load_model(str(tiny_model))
        examples = encode(model.tokenizer, rows, limit=200)
        runner = Runner(model, examples)
        assert runner.prefix > 4
        if prefix is not None:
            runner.prefix = prefix
        peft = fresh_layers(model, BundleConfig(rank=4, base_fingerprint=model.base.fingerprint), 0)
        with torch.no_grad():
            for name, parameter in peft.named_parameters():
                if "eul_up" in name:
                    parameter.fill_(0.01)
        logits = runner.logits(runner.hidden(runner.batch(examples)))
        logits.logsumexp(-1).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for n, p in sorted(peft.named_parameters()) if "eul_" in n and p.grad is not None]
        found.append((logits.detach(), gradients))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    assert len(found[0][1]) == 6
    for first, second in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_prompts_are_rendered_with_the_chat_template_or_as_they_are(
    tiny_model: Path, make_layout: MakeLayout, tmp_path: Path
) -> None:
    tokenizer = load_model(str(tiny_model)).tokenizer
    assert tokenizer.decode(render_prompt(tokenizer, "Who?")) == "<|user|>Who?<|end|><|assistant|>"
    bare = load_model(str(make_layout("qwen2", tmp_path, template=False))).tokenizer
    assert bare.decode(render_prompt(bare, "Who?")) == "Who?"
    example = encode(bare, [Row(prompt="Who?", completion="Me.")], limit=50, end_token=True)[0]
    assert bare.decode(example.answer) == " Me.<|end|>"


def test_a_row_that_is_too_long_is_named(tiny_model: Path) -> None:
    tokenizer = load_model(str(tiny_model)).tokenizer
    with pytest.raises(InputError, match=r"row 2: expected 1 to 20 tokens"):
        encode(tokenizer, [ROWS[0], Row(prompt="x " * 50, completion="y")], limit=20)


def test_shared_prefix_leaves_each_prompt_a_token() -> None:
    same = [Example(prompt=(1, 2, 3), answer=(4,))] * 2
    assert shared_prefix(same) == 2
    assert shared_prefix([*same, Example(prompt=(1, 9), answer=(4,))]) == 1
    assert shared_prefix([Example(prompt=(5,), answer=(4,))]) == 0


def test_batches_hold_rows_of_like_length() -> None:
    examples = [Example(prompt=(1,) * size, answer=(2,)) for size in (9, 1, 8, 2)]
    assert by_length(examples, 2) == [[1, 3], [2, 0]]


def test_t5_runs_with_its_encoder_and_both_kinds_of_blocks(make_layout: MakeLayout, tmp_path: Path) -> None:
    folder = make_layout("t5", tmp_path)
    model = load_model(str(folder))
    examples = encode(model.tokenizer, ROWS, limit=200)
    runner = Runner(model, examples)
    scores = row_scores(runner, examples)
    plain = T5ForConditionalGeneration.from_pretrained(folder).eval()
    for example, score in zip(examples, scores, strict=True):
        loss = plain(input_ids=torch.tensor([example.prompt]), labels=torch.tensor([example.answer])).loss.item()
        assert score.loss == pytest.approx(loss, abs=1e-5)
    shape = BundleConfig(
        rank=4, base_fingerprint=model.base.fingerprint, target_modules=model.targets, task_type="SEQ_2_SEQ_LM"
    )
    peft, taps = fresh_layers(model, shape, 0), Taps()
    from eul_serve.peft import observe

    batch = runner.batch(examples)
    with observe(peft, taps):
        runner.hidden(batch)
    outputs = taps.outputs(batch, torch.tensor([True, False, True]))
    assert len(outputs) == 4  # two blocks of the encoder, two of the decoder
    prompts, answers = (sum(len(getattr(examples[row], part)) for row in (0, 2)) for part in ("prompt", "answer"))
    assert sorted(len(y) for y, _ in outputs) == sorted([prompts, prompts, answers, answers])


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "no weights", "no tokenizer", "broken weights", "pickled weights", "not JSON"]
)
def test_what_is_no_model_gets_one_line(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if kind != "missing":
        folder.mkdir()
    wanted = {"no weights": ["config.json", "tokenizer.json"], "no tokenizer": ["config.json", "model.safetensors"]}
    for name in wanted.get(kind, ["config.json", "tokenizer.json"] if "weights" in kind else []):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    if kind == "broken weights":
        (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    if kind == "pickled weights":
        torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    if kind == "not JSON":
        (folder / "config.json").write_text("{")
    with pytest.raises(InputError) as caught:
        load_model(str(folder))
    assert "model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_model_type_is_named(make_layout: MakeLayout, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gpt_neox"):
        load_model(str(make_layout("gpt_neox", tmp_path)))


def test_an_unknown_device_is_named(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="device 'nowhere'"):
        load_model(str(tiny_model), "nowhere")


def test_a_name_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"neither a local directory nor a model that the hub gives"):
        load_model("nobody/nothing-here")


def test_weights_are_refused_that_transformers_cannot_load(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "no-such-type"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="transformers cannot load it"):
        load_model(str(folder))
