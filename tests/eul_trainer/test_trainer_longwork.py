"""Long runs: real kills, full disks, signals, logs, and checkpoints that do not fit."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.errors import CapacityError, InputError
from eul_serve.format.digest import digest_file
from eul_trainer.cli.main import run
from eul_trainer.fit.run import fit
from eul_trainer.model.load import load_model
from eul_trainer.records import Fields, Row, read_rows
from eul_trainer.settings import FitSettings
from eul_trainer.upkeep.care import Care
from eul_trainer.upkeep.checkpoint import checkpoint_path
from eul_trainer.upkeep.interrupt import Interrupted, interruptible
from eul_trainer.upkeep.memory import advice, advised, is_out_of_memory
from eul_trainer.upkeep.pace import Pace
from eul_trainer.upkeep.runlog import JsonLog, TensorBoard

STEPS = 60
SETTINGS = FitSettings(
    rank=4, learning_rate=0.05, target_low=90, target_high=91, steps=12, batch_size=8, settle=0.0, shift=0.0
)
Rows = tuple[list[Row], list[Row]]
Forker = Any
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def rows(data: Path) -> Rows:
    return read_rows(data / "first.jsonl", Fields()), read_rows(data / "retain.jsonl", Fields())


@pytest.fixture(scope="module")
def line(tiny_model: Path, data: Path) -> list[str]:
    """A run that never reaches its target."""
    words = ["fit", "--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl",
             "--rank", "4", "--target-low", "90", "--target-high", "91", "--steps", STEPS, "--scale", "1",
             "--checkpoint-every", "7"]  # fmt: skip
    return list(map(str, words))


@pytest.fixture(scope="module")
def whole(forker: Forker, line: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the unbroken run gives."""
    out: Path = tmp_path_factory.mktemp("whole") / "out"
    assert forker.finish(forker.start([*line, "--out", out]))[0] == 0
    return out


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def steps_in(path: Path) -> int:
    return sum('"event": "step"' in text for text in path.read_text().splitlines()) if path.exists() else 0


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_three_sigkills_at_random_moments_change_no_bit(
    forker: Forker, line: list[str], whole: Path, tmp_path: Path
) -> None:
    """Kills fall between two steps, in a step, in a write and while the run goes on; the log has each step once."""
    chance = random.Random(20231)
    out, log = tmp_path / "killed", tmp_path / "log.jsonl"
    for part in range(3):
        child = forker.start([*line, "--out", out, "--log", log])
        moment = part * STEPS // 3 + chance.randint(2, STEPS // 3 - 2)
        wait_for(lambda moment=moment: steps_in(log) >= moment)  # type: ignore[misc]
        time.sleep(chance.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        assert forker.finish(child)[0] == -signal.SIGKILL
        assert not out.exists()
    status, told = forker.finish(forker.start([*line, "--out", out, "--log", log]))
    assert status == 0
    assert "went on from step" in told
    assert digest_file(out / WEIGHTS) == digest_file(whole / WEIGHTS)
    assert [item["step"] for item in lines_of(log) if item["event"] == "step"] == list(range(1, STEPS + 1))
    curves = [json.loads((folder / "run.json").read_text())["curve"] for folder in (out, whole)]
    assert curves[0] == curves[1]
    probes = {item["step"]: item["forget_loss"] for item in lines_of(log) if item["event"] == "probe"}
    assert probes == {step: losses["probe"] for step, losses in enumerate(curves[0], 1) if "probe" in losses}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_run_and_says_how_to_go_on(
    number: signal.Signals, forker: Forker, line: list[str], tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    child = forker.start([*line, "--steps", "4000", "--out", out, "--log", log])
    wait_for(lambda: steps_in(log) >= 3)
    os.kill(child, number)
    status, told = forker.finish(child)
    assert status == 128 + number
    last = told.splitlines()[-1]
    done = steps_in(log)
    assert last.startswith(f"eul-train: ended by {number.name} after step {done}: saved in ")
    assert last.endswith("run the same line again to go on")
    assert "Traceback" not in told
    child = forker.start([*line, "--steps", "4000", "--out", out, "--log", log])
    wait_for(lambda: steps_in(log) > done)
    os.kill(child, signal.SIGKILL)
    forker.finish(child)
    assert [item["step"] for item in lines_of(log)[1:] if item["event"] == "step"][:done] == list(range(1, done + 1))


def test_a_second_signal_does_not_wait() -> None:
    with interruptible() as interrupt:
        interrupt.patient = True
        interrupt(signal.SIGINT, None)
        assert interrupt.number == signal.SIGINT
        with pytest.raises(Interrupted, match="ended by SIGTERM"):
            interrupt(signal.SIGTERM, None)


def test_a_disk_that_fills_loses_nothing(forker: Forker, line: list[str], whole: Path, tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk: the checkpoint meets it, then the log, then the bundle."""
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    again = [*line, "--out", out, "--log", log]
    status, told = forker.finish(forker.start(again, FSIZE=4000))
    assert (status, "Traceback" in told) == (6, False)
    assert f"eul-train: checkpoint {str(checkpoint_path(out))!r}: cannot write: File too large; free space" in told
    assert list(tmp_path.glob(".out*")) == []
    child = forker.start(again)
    wait_for(lambda: steps_in(log) >= 30)
    os.kill(child, signal.SIGKILL)
    forker.finish(child)
    kept = checkpoint_path(out).read_bytes()
    status, told = forker.finish(forker.start(again, FSIZE=len(kept) - 1))
    assert (status, "Traceback" in told) == (6, False)
    assert "the checkpoint before it stays, so run the line again after that" in told or "eul-train: log " in told
    assert checkpoint_path(out).read_bytes() == kept
    assert not out.exists()
    assert forker.finish(forker.start([*line, "--out", out, "--log", log]))[0] == 0
    assert digest_file(out / WEIGHTS) == digest_file(whole / WEIGHTS)
    assert steps_in(log) == STEPS


def test_no_memory_names_the_settings_to_change(forker: Forker, line: list[str], tmp_path: Path) -> None:
    big = [*line, "--batch-size", "4096", "--out", tmp_path / "out"]
    status, told = forker.finish(forker.start(big, AS=150 * 2**20))
    assert (status, "Traceback" in told) == (6, False), told
    assert "eul-train: out of memory " in told
    assert "lower --batch-size (now 4096)" in told


def test_every_kind_of_memory_error_is_known() -> None:
    class Allocator(RuntimeError):
        pass

    errors = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
              Allocator("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")]  # fmt: skip
    for error in errors:
        assert is_out_of_memory(error)
        words = r"out of memory in step 3: .*lower --batch-size \(now 8\)"
        with pytest.raises(CapacityError, match=words), advised(SETTINGS, "in step 3"):
            raise error
    with pytest.raises(RuntimeError, match="shape"), advised(SETTINGS, "in step 3"):
        raise RuntimeError("shape mismatch")
    assert "batch-size" not in advice(replace(SETTINGS, batch_size=2))


class Stop(Exception):  # not an error: it stands for a kill
    pass


def stopped(model: Path, rows: Rows, path: Path, settings: FitSettings = SETTINGS, **options: Any) -> None:
    """Train until the step after a checkpoint."""

    def watch(done: int, losses: dict[str, float]) -> None:
        if done == 9:
            raise Stop

    with pytest.raises(Stop):
        fit(load_model(str(model)), *rows, settings, checkpoint=path, watch=watch, **options)


def test_a_checkpoint_of_other_settings_or_data_is_refused_and_kept(
    tiny_model: Path, rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint_path(tmp_path / "out")
    stopped(tiny_model, rows, path)
    kept = path.read_bytes()
    model = load_model(str(tiny_model))
    words = (
        r"cut off after 8 steps with other settings or data: --learning-rate was 0.05 and is 0.01; --seed was 0 and is "
        r"5; the rows to keep changed; restore them to go on, or start anew with --fresh$"
    )
    with pytest.raises(InputError, match=words):
        fit(model, rows[0], rows[1][1:], replace(SETTINGS, seed=5, learning_rate=0.01), checkpoint=path)
    assert path.read_bytes() == kept
    assert fit(model, *rows, SETTINGS, checkpoint=path).resumed == 8


@pytest.mark.parametrize("damage", ["torn", "nonsense", "empty", "other tensors"])
def test_a_damaged_checkpoint_is_one_line(damage: str, tiny_model: Path, rows: Rows, tmp_path: Path) -> None:
    import safetensors
    import safetensors.torch

    path = checkpoint_path(tmp_path / "out")
    stopped(tiny_model, rows, path)
    data = path.read_bytes()
    if damage == "other tensors":
        with safetensors.safe_open(path, framework="pt") as file:
            facts = file.metadata()
        path.write_bytes(safetensors.torch.save({"parameter.x": torch.zeros(1)}, metadata=facts))
    else:
        path.write_bytes({"torn": data[:-7], "nonsense": b"x" * 50, "empty": b""}[damage])
    with pytest.raises(InputError, match=r"checkpoint '.*': damaged: .*; start anew with --fresh$"):
        fit(load_model(str(tiny_model)), *rows, SETTINGS, checkpoint=path)


def test_fresh_starts_anew_and_replaces_the_log(
    line: list[str], tiny_model: Path, rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    stopped(tiny_model, rows, checkpoint_path(out), care=Care(recorders=[JsonLog(log)]))
    short = [*line, "--steps", "3", "--out", str(out), "--log", str(log)]
    assert run(short) == 2
    assert "start anew with --fresh" in capsys.readouterr().err
    assert run([*short, "--fresh"]) == 0
    assert [item.get("step") for item in lines_of(log)] == [None, 1, 2, 3, 3]
    assert not checkpoint_path(out).exists()


def pace() -> Pace:
    found = Pace(10)
    found.tick(1, 8)
    return found


def test_a_log_is_brought_to_the_checkpoint(tmp_path: Path) -> None:
    """Later lines go, missing ones come from the curve, kept ones stay byte for byte, a torn end goes."""
    path = tmp_path / "log.jsonl"
    curve = [{"loss": 3.0}, {"loss": 2.5, "probe": 7.0}, {"loss": 2.25}]
    log = JsonLog(path)
    log.begin("sha256:run", [])
    log.step(1, curve[0], pace())
    log.step(2, curve[1], pace())
    for number in (3, 4):
        log.step(number, {"loss": 99.0}, pace())
    texts = path.read_text().splitlines()
    assert [json.loads(text).get("forget_loss") for text in texts] == [None, None, None, 7.0, None, None]
    path.write_text("\n".join([texts[0], texts[1], texts[3], '{"event": "step", "st']))
    again = JsonLog(path)
    again.begin("sha256:run", curve)
    again.step(4, {"loss": 2.0}, pace())
    found = path.read_text().splitlines()
    assert found[1] == texts[1]
    assert found[3] == texts[3]
    assert [(item["event"], item["step"], item.get("loss")) for item in map(json.loads, found[1:])] == [
        ("step", 1, 3.0), ("step", 2, 2.5), ("probe", 2, None), ("step", 3, 2.25), ("step", 4, 2.0),
    ]  # fmt: skip


def test_a_log_never_replaces_another_file(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"prompt": "precious"}\n')
    with pytest.raises(InputError, match="expected the log of a run or a new file"):
        JsonLog(path, fresh=True).begin("sha256:run", [])
    assert "precious" in path.read_text()
    path.unlink()
    JsonLog(path).begin("sha256:one", [])
    with pytest.raises(InputError, match="the log of another run"):
        JsonLog(path).begin("sha256:two", [])
    with pytest.raises(InputError, match="cannot read: Not a directory"):
        JsonLog(path / "x").begin("sha256:two", [])


@pytest.mark.parametrize("option", ["--log", "--tensorboard"])
def test_a_log_inside_of_the_output_is_refused_before_any_work(
    option: str, line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would fill the directory that must be empty when the layer is written."""
    out = tmp_path / "out"
    assert run([*line, "--out", str(out), option, str(out / "log")]) == 2
    assert f"{option} {str(out / 'log')!r}: expected a place outside of the output" in capsys.readouterr().err
    assert not out.exists()


def test_tensorboard_gets_every_step_once_over_a_kill(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = TensorBoard(tmp_path / "board")
    first.begin("sha256:run", [])
    for number in (1, 2, 3):
        first.step(number, {"loss": float(number)}, pace())
    second = TensorBoard(tmp_path / "board")
    second.begin("sha256:run", [{"loss": 1.0}])
    for number in (2, 3, 4):
        second.step(number, {"loss": 10.0 * number}, pace())
    found = EventAccumulator(str(tmp_path / "board"))
    found.Reload()
    assert [(item.step, item.value) for item in found.Scalars("loss/loss")] == [
        (1, 1.0),
        (2, 20.0),
        (3, 30.0),
        (4, 40.0),
    ]
    assert "pace/rows_per_second" in found.Tags()["scalars"]


def test_without_the_package_tensorboard_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'eul-serve\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_the_pace_is_rows_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 2 s with 8 rows each: 4 rows a second; 7 of 10 steps are left, 14 s."""
    times = iter([100.0, 102.0, 104.0, 106.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    found = Pace(10)
    for step in (1, 2, 3):
        found.tick(step, 8)
    assert (found.seconds, found.rows_per_second, found.left) == (6.0, 4.0, 14.0)
    assert found.memory > 10**7
    assert found.words().startswith("4.0 rows/s, at most 0:14 left, ")


def test_a_weight_that_is_no_number_is_named(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    import safetensors.torch

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"tensor 'model.layers.1.mlp.up_proj.weight': expected finite numbers"):
        load_model(str(folder))
