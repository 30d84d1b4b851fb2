"""Two processes take the steps of one: same objective, same layer, one writer."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from eul_serve.format.digest import digest_file
from eul_trainer.fit.schedule import Draw
from eul_trainer.model.devices import SINGLE, Devices, gradients
from eul_trainer.objectives.terms import counted_over, loudness, mean

WEIGHTS = "adapter_model.safetensors"
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
"""What `accelerate launch --use_fsdp` sets."""


@pytest.fixture
def line(tiny_model: Path, data: Path) -> list[str]:
    words = ["fit", "--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl",
             "--rank", "4", "--target-low", "90", "--target-high", "91", "--steps", "10", "--scale", "1",
             "--checkpoint-every", "3", "--json"]  # fmt: skip
    return list(map(str, words))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def together(forker: Any, line: list[Any], count: int = 2, **env: str) -> list[tuple[int, str]]:
    """Run a line in several processes, as a launcher would start them."""
    return [forker.finish(child) for child in start_together(forker, line, count, **env)]


def start_together(forker: Any, line: list[Any], count: int = 2, **env: str) -> list[int]:
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
              "LOCAL_WORLD_SIZE": str(count), **env}  # fmt: skip
    return [forker.start(line, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]


def steps_in(path: Path) -> int:
    return path.read_text().count('"event": "step"') if path.exists() else 0


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_close(first: Path, second: Path) -> None:
    one, other = (safetensors.torch.load_file(folder / WEIGHTS) for folder in (first, second))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-5)


def alone(forker: Any, line: list[Any]) -> None:
    status, told = forker.finish(forker.start(line))
    assert status == 0, told


def test_two_processes_give_the_layer_of_one(forker: Any, line: list[str], tmp_path: Path) -> None:
    """A batch of 5 over 2 processes: shares of unequal rows and tokens."""
    line = [*line, "--batch-size", "5"]
    alone(forker, [*line, "--out", tmp_path / "one"])
    log = tmp_path / "log.jsonl"
    first, second = together(forker, [*line, "--out", tmp_path / "two", "--log", log])
    assert (first[0], second) == (0, (0, "")), first[1]
    assert_close(tmp_path / "one", tmp_path / "two")
    assert json.loads(first[1].splitlines()[-1])["path"] == str(tmp_path / "two")
    steps = [json.loads(text) for text in log.read_text().splitlines()[1:]]
    curve = json.loads((tmp_path / "one" / "run.json").read_text())["curve"]
    for found in steps:
        if found["event"] == "step":
            assert found["loss"] == pytest.approx(curve[found["step"] - 1]["loss"], rel=1e-5)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_process_without_rows_steps_with_the_others(forker: Any, line: list[str], tmp_path: Path) -> None:
    """The paper's batches of 2 rows over 3 processes; npo takes means over rows."""
    for objective in ("paper", "npo"):
        words = [*line, "--objective", objective, "--batch-size", "2", "--steps", "4", "--learning-rate", "0.002"]
        words += ["--unrelated-limit", "0"]
        alone(forker, [*words, "--out", tmp_path / f"{objective}-1"])
        told = together(forker, [*words, "--out", tmp_path / f"{objective}-3"], count=3)
        assert [status for status, _ in told] == [0, 0, 0], told
        assert_close(tmp_path / f"{objective}-1", tmp_path / f"{objective}-3")


def test_processes_end_together_go_on_together_and_miss_each_other(
    forker: Any, line: list[str], tmp_path: Path
) -> None:
    """A signal to one ends both after the same step; a killed one is missed in words; no bit changes."""
    out, log = tmp_path / "two", tmp_path / "log.jsonl"
    line = [*line[:-1], "--steps", "40", "--learning-rate", "0.0005"]
    together(forker, [*line, "--out", tmp_path / "whole"])
    again = [*line, "--out", out, "--log", log]
    for number, other in ((signal.SIGTERM, 143), (signal.SIGKILL, 1)):
        begun = steps_in(log)
        children = start_together(forker, again)
        wait_for(lambda begun=begun: steps_in(log) > begun + 3)  # type: ignore[misc]
        os.kill(children[1], number)
        told = [forker.finish(child) for child in children]
        assert [status for status, _ in told] == [other, 143 if other == 143 else -9], told
        assert "Traceback" not in told[0][1]
        words = "ended by SIGTERM after step" if other == 143 else "another process of this run is gone"
        assert words in told[0][1].splitlines()[-1]
    assert [status for status, _ in together(forker, again)] == [0, 0]
    assert digest_file(out / WEIGHTS) == digest_file(tmp_path / "whole" / WEIGHTS)
    assert steps_in(log) == 40


def test_a_base_model_spread_over_processes_gives_the_same_layer(forker: Any, line: list[str], tmp_path: Path) -> None:
    """As `accelerate launch --use_fsdp` starts them; each process holds half of the weights of the blocks."""
    line = [*line[:-1], "--unrelated-limit", "0"]
    alone(forker, [*line, "--out", tmp_path / "one"])
    told = together(forker, [*line, "--out", tmp_path / "two"], **FSDP)
    assert [status for status, _ in told] == [0, 0], told
    words = re.search(r"over 2 processes: (\d+) of (\d+) weights of its blocks are here", told[0][1])
    assert words is not None
    assert 2 * int(words[1]) == int(words[2])
    assert_close(tmp_path / "one", tmp_path / "two")
    refused = together(forker, [*line, "--trainable", "full", "--out", tmp_path / "full"], **FSDP)
    assert [status for status, _ in refused] == [2, 2]
    assert "launch without --use_fsdp" in refused[0][1]


def test_processes_with_other_weights_do_not_train(
    forker: Any, line: list[str], other_model: Path, tmp_path: Path
) -> None:
    """As where a machine has another copy of the model: the layer would be of no model."""
    line = [*line[:-1], "--out", str(tmp_path / "out")]
    other = [str(other_model) if line[place - 1] == "--model" else word for place, word in enumerate(line)]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "LOCAL_WORLD_SIZE": "2"}
    children = [
        forker.start(words, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, words in enumerate((line, other))
    ]
    told = [forker.finish(child) for child in children]
    assert [status for status, _ in told] == [1, 1], told
    assert "the 2 processes have different weights of the base model" in told[0][1]
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_all_processes_have_is_said_once(forker: Any, line: list[str], tmp_path: Path) -> None:
    told = together(forker, [*line[:-1], "--out", tmp_path / "out", "--rank", "0"])
    assert [status for status, _ in told] == [2, 2]
    assert told[0][1].startswith("eul-train: --rank: expected 1 to")
    assert told[1][1] == ""


class Second(Devices):
    index, count = 1, 3


def test_shares_are_disjoint_whole_and_keep_pairs_together() -> None:
    drawn = Draw(forget=(1, 2, 3, 4), retain=(5, 6, 7), refusal=(1, 2, 3, 4))
    assert SINGLE.share(drawn) == drawn
    assert Second().share(drawn) == Draw(forget=(2,), retain=(6,), refusal=(2,))
    assert Second().main is False


def parts(compute: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor, cuts: list[int]) -> list[torch.Tensor]:
    """What each of three processes computes of its share; the counts of all are known beforehand."""
    found = []
    for share in values.split(cuts):
        with counted_over(lambda count: len(values)):
            found.append(compute(share))
    return found


def test_parts_of_a_mean_add_up_to_the_mean() -> None:
    """Mean of 1..6 is 3.5, from shares of 1, 0 and 5 values: 1/6 + 0 + 20/6."""
    values = torch.arange(1.0, 7.0)
    assert [part.item() for part in parts(mean, values, [1, 0, 5])] == pytest.approx([1 / 6, 0, 20 / 6])
    assert mean(values).item() == 3.5
    assert mean(values[:0]).item() == 0


def test_parts_of_the_loudness_add_up() -> None:
    y = torch.arange(1.0, 13.0).view(6, 2)
    delta = y.flip(0)
    whole = loudness([(y, delta), (2 * y, delta)])
    found = parts(lambda share: loudness([(share, share.flip(1)), (2 * share, share.flip(1))]), y, [1, 0, 5])
    expected = loudness([(y, y.flip(1)), (2 * y, y.flip(1))])
    assert sum(part.item() for part in found) == pytest.approx(expected.item(), rel=1e-6)
    assert whole.item() > 0


def test_a_parameter_without_a_gradient_counts_as_zeros() -> None:
    one, two = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    (one * 2).sum().backward()
    assert [found.tolist() for found in gradients([one, two])] == [[2, 2], [0, 0, 0]]


def test_two_processes_evaluate_as_one_and_compute_no_row_twice(
    forker: Any, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    line = ["eval", "--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl",
            "--answer-tokens", "4", "--json"]  # fmt: skip
    alone(forker, [*line, "--out", tmp_path / "one"])
    first, second = together(forker, [*line, "--out", tmp_path / "two"])
    assert (first[0], second) == (0, (0, "")), first[1]
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    for mine, theirs in zip(one["rows"], two["rows"], strict=True):
        assert mine["systems"]["base"]["answer"] == theirs["systems"]["base"]["answer"]
        assert mine["systems"]["base"]["loss"] == pytest.approx(theirs["systems"]["base"]["loss"], abs=1e-5)
    lines = {path.name: path.read_text().splitlines() for path in (tmp_path / "two.cache").glob("*.jsonl")}
    kept = [json.loads(text)["row"] for name in lines for text in lines[name] if not name.startswith("answer")]
    assert len(kept) == len(set(kept)) > 30
    assert all(len(lines[name]) > 5 for name in lines), "one process did nearly all"
    assert sorted(name.count(".") for name in lines) == [1] * 4 + [2] * 4  # answers and three kinds of scores, of each
    alone(forker, [*line, "--out", tmp_path / "three", "--cache", tmp_path / "two.cache"])
    after = {path.name: path.read_text().splitlines() for path in (tmp_path / "two.cache").glob("*.jsonl")}
    assert after == lines  # one process finds what two have computed


def test_an_evaluation_with_a_spread_model_is_refused(
    forker: Any, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    line = ["eval", "--model", tiny_model, "--forget", data / "first.jsonl", "--retain", data / "retain.jsonl"]
    told = together(forker, [*line, "--out", tmp_path / "out"], **FSDP)
    assert [status for status, _ in told] == [2, 2], told
    assert "every process holds the whole model; leave --use_fsdp out" in told[0][1]
