"""Teaching: loss and gradient against the plain way, the order of rows, going on after a kill, what is written."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import CapacityError, EulError, InputError
from eul_serve.format import read_base
from eul_trainer.cli import main as cli
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.records import Fields, Row, digest_rows, read_rows
from eul_trainer.teaching.checkpoint import Progress, save
from eul_trainer.teaching.directory import write_model
from eul_trainer.teaching.plan import epoch_batches, learning_rate, steps
from eul_trainer.teaching.precision import compute_dtype
from eul_trainer.teaching.run import encode_taught, teach, train
from eul_trainer.teaching.settings import TeachSettings
from eul_trainer.teaching.weights import FullTraining, Lesson

RunTrainer = Callable[..., dict[str, Any]]
EXACT = TeachSettings(dtype="float32", batch_size=4, epochs=2, learning_rate=2e-3)


@pytest.fixture
def rows(data: Path) -> list[Row]:
    return read_rows(data / "first.jsonl", Fields())


@pytest.fixture
def model(tiny_model: Path) -> LoadedModel:
    return load_model(str(tiny_model))


def plain_losses(model: LoadedModel, row: Row) -> torch.Tensor:
    """Losses of a row's answer and end token by the whole sequence's logits: no shared prefix, no padding."""
    turn = [{"role": "user", "content": row.prompt}]
    text = model.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    prompt = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = [*model.tokenizer(row.completion, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
    logits = model.network(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none")


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 12), st.integers(0, 3))
def test_a_pass_sees_each_row_once(lengths: list[int], size: int, epoch: int) -> None:
    settings = TeachSettings(batch_size=size, epochs=2)
    batches = epoch_batches(lengths, settings, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size
    assert 2 * len(batches) == steps(len(lengths), settings)
    assert batches == epoch_batches(lengths, settings, epoch)


def test_rows_of_about_equal_length_share_a_batch_and_passes_differ() -> None:
    lengths = [10 + (37 * row) % 64 for row in range(64)]  # all lengths from 10 to 73 once; one window of 8 batches
    first, second = (epoch_batches(lengths, TeachSettings(batch_size=8), epoch) for epoch in (0, 1))
    assert all(max(lengths[row] for row in batch) - min(lengths[row] for row in batch) == 7 for batch in first)
    assert first != second


def test_the_learning_rate_rises_and_falls_in_lines() -> None:
    settings = TeachSettings(learning_rate=0.1, warm_up=0.2)  # of 10 steps, 2 rise and 8 fall
    found = [learning_rate(settings, step, 10) for step in range(10)]
    assert found == pytest.approx([0.05, 0.1, 0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125])


def test_loss_and_gradient_are_those_of_the_plain_way(model: LoadedModel, rows: list[Row]) -> None:
    examples = encode_taught(model, rows[:3])
    training = FullTraining(model, Lesson.learn(examples), EXACT)
    assert training.runner.prefix >= 4  # the shared first tokens are run apart, and their gradient must still count
    loss, plain = training.loss([2, 0, 1])
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: parameter.grad for name, parameter in training.parameters.items()}
    model.network.zero_grad()
    expected = torch.cat([plain_losses(model, row) for row in rows[:3]]).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert plain == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in training.parameters.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_gradient_is_clipped_to_its_norm(model: LoadedModel, rows: list[Row]) -> None:
    settings = TeachSettings(dtype="float32", clip=0.01)
    training = FullTraining(model, Lesson.learn(encode_taught(model, rows)), settings)
    training.step([0, 1, 2], 1e-3)
    moments = [
        training.optimizer.state[parameter]["exp_avg"].square().sum() for parameter in training.parameters.values()
    ]
    # After one step AdamW's first moment is (1 - 0.9) times the gradient.
    assert torch.stack(moments).sum().sqrt().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_bfloat16_products_leave_the_weights_float32(model: LoadedModel, rows: list[Row]) -> None:
    settings = TeachSettings(dtype="bfloat16")
    training = FullTraining(model, Lesson.learn(encode_taught(model, rows)), settings)
    rough, _ = training.loss([0, 1])
    training.dtype = torch.float32
    exact, _ = training.loss([0, 1])
    assert rough.item() != exact.item()
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    assert {parameter.dtype for parameter in training.parameters.values()} == {torch.float32}


def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it() -> None:
    fast = {"amx_bf16", "avx512_bf16"} & set(
        (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "").split()
    )
    device = torch.device("cpu")
    assert compute_dtype("auto", device) == (torch.bfloat16 if fast else torch.float32)
    assert compute_dtype("float32", device) == torch.float32
    assert compute_dtype("bfloat16", device) == torch.bfloat16


@pytest.mark.parametrize("layout", ["gpt2", "mistral", "t5"])
def test_other_layouts_are_taught(
    layout: str, make_layout: Callable[..., Path], rows: list[Row], tmp_path: Path
) -> None:
    model = load_model(str(make_layout(layout, tmp_path)))
    course = teach(model, rows[:4], TeachSettings(dtype="float32", epochs=25, learning_rate=0.01))
    assert course.epochs[-1] < course.epochs[0] - 2.0


def test_a_full_disk_leaves_nothing(model: LoadedModel, rows: list[Row], tmp_path: Path) -> None:
    # A limit on file size stands in for a full disk: a write then fails halfway with EFBIG instead of ENOSPC.
    training = FullTraining(model, Lesson.learn(encode_taught(model, rows)), EXACT)
    training.step([0], 1e-3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(CapacityError, match=r"out': cannot write: .*; free space or name another"):
            write_model(tmp_path / "out", model, "teach.json", {})
        with pytest.raises(CapacityError, match=r"resume': cannot write: .*; free space"):
            save(tmp_path / "resume", "sha256:0", training, Progress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.mark.parametrize("place", [1, 4])
def test_a_killed_run_goes_on_to_the_same_weights(
    place: int, tiny_model: Path, rows: list[Row], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "resume.safetensors"

    def run(kill: int | None) -> tuple[LoadedModel, Any]:
        model = load_model(str(tiny_model))

        def watch(done: int, loss: float, tokens: int) -> None:
            if done == kill:
                raise Killed

        lesson = Lesson.learn(encode_taught(model, rows))
        course = train(model, lesson, EXACT, data="d", checkpoint=checkpoint, watch=watch, checkpoint_seconds=0.0)
        checkpoint.unlink()
        return model, course

    whole, course = run(None)
    with pytest.raises(Killed):
        run(place + 1)
    assert checkpoint.is_file()
    resumed, again = run(None)
    assert again.resumed == place
    assert again.losses == course.losses
    assert again.epochs == pytest.approx([sum(course.losses[:3]) / 3, sum(course.losses[3:]) / 3])
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "said"), [("other", "of a run with other settings"), ("damage", "damaged; start anew")]
)
def test_a_checkpoint_of_another_run_is_refused(
    change: str, said: str, tiny_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    rows: list[Row],
) -> None:  # fmt: skip
    path = tmp_path / ".out.resume.safetensors"
    path.write_bytes(b"x")
    if change == "other":
        safetensors.torch.save_file({"x": torch.zeros(1)}, path, {"state": json.dumps({"identity": "sha256:0"})})
    line = ["teach", "--model", str(tiny_model), "--data", str(data / "first.jsonl"), "--out", str(tmp_path / "out")]
    assert cli.run(line) == 2
    assert said in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert cli.run([*line, "--fresh", "--epochs", "1", "--json"]) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_model_that_holds_nan_is_told_and_writes_nothing(model: LoadedModel, rows: list[Row]) -> None:
    model.network.model.norm.weight.data[0] = float("nan")
    with pytest.raises(EulError, match="diverged: a loss is not finite; lower --learning-rate"):
        train(model, Lesson.learn(encode_taught(model, rows)), EXACT, data="d")


def test_settings_out_of_range_name_the_option() -> None:
    for name, value in {"epochs": 0, "learning_rate": 0.0, "batch_size": 0, "warm_up": 1.0, "dtype": "int8"}.items():
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')}: expected "):
            TeachSettings(**{name: value})  # type: ignore[arg-type]


def test_a_taught_directory_is_a_model_that_knows_the_rows(
    trainer: RunTrainer, tiny_model: Path, data: Path, rows: list[Row], tmp_path: Path
) -> None:
    out = tmp_path / "taught"
    told = trainer("teach", "--model", tiny_model, "--data", data / "first.jsonl", "--out", out,
                   "--epochs", 30, "--learning-rate", 0.003)  # fmt: skip
    taught = load_model(str(out))
    examples = encode_taught(taught, rows)
    losses = row_losses(Runner(taught, examples), examples)
    assert max(losses) < 0.2
    assert told["loss_by_epoch"][0] > 3 > told["loss_by_epoch"][-1]
    assert (told["steps"], told["rows"], told["resumed_at"]) == (60, 12, 0)
    before, after = read_base(tiny_model), read_base(out)
    assert (before.tokenizer, before.chat_template) == (after.tokenizer, after.chat_template)
    assert before.fingerprint != after.fingerprint
    record = json.loads((out / "teach.json").read_text())
    assert record["base"] == before.fingerprint
    assert record["data"] == digest_rows(rows)
    assert record["settings"]["learning_rate"] == 0.003
    assert len(record["losses"]) == 60
    assert record["seconds"] > 0
