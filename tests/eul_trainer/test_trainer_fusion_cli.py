"""`fuse` and `revoke` on the command line, and fusions on models of every layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from eul_serve.format import Bundle, fingerprint, read_bundle
from eul_serve.peft import ffn_modules, load
from eul_trainer.cli.main import run
from eul_trainer.fusion.fuse import fuse
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.model.load import load_model
from eul_trainer.records import Fields, read_rows

MakeLayer = Callable[..., Bundle]
RunTrainer = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def pair(tiny_model: Path, make_layer: MakeLayer, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random layers for the tiny model."""
    folder, base = tmp_path_factory.mktemp("pair"), fingerprint(tiny_model)
    return [make_layer(folder / str(seed), seed, width=64, rank=4, scale=0.1, base=base).path for seed in (0, 1)]


def test_json_says_the_same_of_fuse_and_revoke(
    pair: list[Path], tiny_model: Path, data: Path, tmp_path: Path, trainer: RunTrainer
) -> None:
    model = ["--model", tiny_model, "--retain", data / "retain.jsonl"]
    told = trainer("fuse", *pair, *model, "--retain-limit", "5", "--out", tmp_path / "fused")
    assert {key: told[key] for key in ("method", "rank", "rho")} == {"method": "concat", "rank": 8, "rho": 0.0}
    assert sorted(told["requests"]) == ["r0", "r1"]
    assert told["retain_rise"] <= 5
    assert told["revision"] == read_bundle(tmp_path / "fused").revision
    rest = trainer("revoke", tmp_path / "fused", "--request", "r0", "--out", tmp_path / "rest")
    assert set(rest) == {"path", "revision", "method", "requests", "rank", "rho"}
    assert rest["requests"] == ["r1"]
    small = trainer("fuse", *pair, "--method", "compress", "--rank", "3", "--out", tmp_path / "small")
    assert small["rank"] == 3
    assert 0 < small["energy_kept"] < 1


def test_words_say_what_was_found(pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["fuse", *pair, "--method", "compress", "--rank", "3", "--out", tmp_path / "small"]
    assert run([*map(str, line)]) == 0
    printed = capsys.readouterr().out
    assert "by compress at rank 3, energy kept 0." in printed
    assert f"wrote {tmp_path / 'small'} sha256:" in printed


def test_a_measured_fusion_is_not_written(
    pair: list[Path], tiny_model: Path, data: Path, trainer: RunTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fuse", *pair, "--method", "gate", "--model", tiny_model, "--retain", data / "retain.jsonl"]
    told = trainer(*line, "--evaluate-only", "--rows", data / "first.jsonl")
    assert (told["method"], sorted(told["requests"])) == ("gate", ["r0", "r1"])
    assert sorted(told["rises"]) == ["first", "retain"]
    assert list(told["rises"]["retain"]) == ["g0", "g1"]
    assert list(told["rises"]["first"]) == ["all"]
    assert run([*map(str, line), "--evaluate-only"]) == 0
    assert "by gate, nothing written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rho", "1", "--method", "regression", "--out", "x"], "--rho: not read by --method regression"),
        (["--evaluate-only"], "--evaluate-only: needs a model and rows"),
        (["--rows", "f.jsonl", "--out", "x"], "--out: name the directory to write"),
        ([], "--out: name the directory to write"),
        (["--model", "m", "--out", "x"], "--model and --retain: expected both or neither"),
        (["--method", "gate", "--out", "x"], "version 1 of the bundle format has no gates"),
        (["--rho-blocks", "all=1", "--out", "x"], "--rho-blocks: expected BLOCK=WEIGHT"),
    ],
)
def test_bad_options_get_one_line(
    options: list[str], words: str, pair: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fuse", *map(str, pair), *options]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not Path("x").exists()
    assert run(["fuse", *map(str, pair), *options, "--json"]) == 2
    assert words in json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "t5"])
def test_every_layout_fuses_and_loads_in_peft(
    kind: str, make_layout: Callable[..., Path], make_layer: MakeLayer, data: Path, tmp_path: Path
) -> None:
    folder = make_layout(kind, tmp_path)
    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    network = auto.from_pretrained(folder)
    last = tuple(ffn_modules(network))
    width = network.config.hidden_size
    modules = tuple(name for name, _ in network.named_modules() if name.split(".")[-1] in last)
    task = "SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM"
    options = {"width": width, "rank": 3, "modules": modules, "base": fingerprint(folder), "scale": 0.1}
    layers = [make_layer(tmp_path / f"l{seed}", seed, targets=last, task=task, **options) for seed in (0, 1)]
    kept = Retained(model=load_model(str(folder)), rows=read_rows(data / "retain.jsonl", Fields()))
    fused = fuse([layer.path for layer in layers], tmp_path / "fused", FuseSettings(rho=0.5), kept)
    assert set(fused.widths) == set(modules)
    assert fused.config.rank == 6
    loaded = load(folder, fused.path)
    ids = torch.arange(5, 15)[None]
    more = {"decoder_input_ids": ids} if kind == "t5" else {}
    with torch.no_grad():
        changed = loaded(ids, **more).logits
        with loaded.disable_adapter():
            plain = loaded(ids, **more).logits
    assert changed.isfinite().all()
    assert not torch.equal(changed, plain)
