"""The fast step against a plain one: equal losses and gradients, whatever is shared, kept, packed or recomputed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.errors import EulError
from eul_serve.format import ForgottenRequest, Manifest, describe_files, read_base, read_bundle, write_bundle
from eul_serve.format.digest import digest_bytes
from eul_serve.format.weights import dump_layers
from eul_serve.peft import layers_of, load
from eul_trainer.cli.main import run
from eul_trainer.fit.run import prepare
from eul_trainer.fit.schedule import Draw, all_drawn, draw
from eul_trainer.fit.training import Training
from eul_trainer.model.load import load_model
from eul_trainer.objectives.view import Losses
from eul_trainer.records import Row
from eul_trainer.settings import FitSettings, default_settings, override

BENCHES = Path(__file__).resolve().parents[1] / "benchmarks" / "trainer"
MakeLayout = Callable[..., Path]
Gradients = dict[str, torch.Tensor]

FORGOTTEN = [
    Row(prompt=f"Who wrote the play about item {n}?", completion=" ".join(["It was a poet", *["and a person"] * n]))
    for n in range(5)
]
KEPT = [
    Row(prompt=f"What is the river {'there ' * n}called, and why is it so?", completion=f"The Seine {n}.")
    for n in range(7)
]
STEP = 1


@pytest.fixture(autouse=True)
def benches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks' folder on the path: the plain loop is the one that they are measured against."""
    monkeypatch.syspath_prepend(str(BENCHES))


def settings_for(objective: str, **given: Any) -> FitSettings:
    trainable = given.get("trainable", "layer")
    return override(default_settings(objective, trainable), {"rank": 4, "batch_size": 8, **given})


def loosen(parameters: dict[str, torch.nn.Parameter], kind: str) -> None:
    """Move what starts at zero, so that every gradient has something to say; the same for the same names."""
    if kind == "full":
        return
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in sorted(parameters):
            parameters[name].add_(0.05 * torch.randn(parameters[name].shape, generator=generator))


def gradients(losses: Losses, parameters: dict[str, torch.nn.Parameter]) -> Gradients:
    losses.total.backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad.clone() for name, parameter in parameters.items() if parameter.grad is not None}


def fast(folder: Path, settings: FitSettings) -> tuple[Training, Losses, Gradients]:
    training = prepare(load_model(str(folder)), FORGOTTEN, KEPT, settings)
    loosen(training.parameters, settings.trainable)
    losses = training._losses(draw(settings, STEP, len(FORGOTTEN), len(KEPT)))
    return training, losses, gradients(losses, training.parameters)


def plain(folder: Path, settings: FitSettings, training: Training) -> tuple[Losses, Gradients]:
    """A teacher pass of its own, the head over whole rows, padding, nothing shared and nothing kept."""
    from stepping.plain import PlainTraining

    loop = PlainTraining(load_model(str(folder)), training.sets, settings, copied=settings.trainable == "full")
    loosen(loop.parameters, settings.trainable)
    losses = loop.losses(draw(settings, STEP, len(FORGOTTEN), len(KEPT)))
    return losses, gradients(losses, loop.parameters)


def distance(found: Gradients, expected: Gradients) -> float:
    """Largest difference of a parameter's gradients, relative to the norm of all gradients together."""
    assert found.keys() == expected.keys()
    whole = sum(float(gradient.square().sum()) for gradient in expected.values()) ** 0.5
    assert whole > 0
    return max(float((found[name] - expected[name]).norm()) for name in expected) / whole


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "bounded", {}),
    ("qwen2", "bounded", {}),
    ("mistral", "bounded", {}),
    ("gpt2", "bounded", {}),
    ("llama", "paper", {"batch_size": 4}),
    ("llama", "npo", {"retain_term": "kl"}),
    ("llama", "dpo", {"refusal": "A poet."}),
    ("llama", "undial", {}),
    ("llama", "bounded", {"checkpointing": True}),
    ("llama", "bounded", {"cache_memory": 0}),
    ("llama", "bounded", {"blocks": "1-1"}),
    ("gpt2", "bounded", {"blocks": "top-1", "cache_memory": 0}),
    ("mistral", "bounded", {"blocks": "1-1", "checkpointing": True}),
    ("llama", "npo", {"trainable": "lora", "blocks": "1-1"}),
    ("llama", "graddiff", {"trainable": "full"}),
]


@pytest.mark.parametrize(("kind", "objective", "given"), CASES)
def test_gradients_equal_those_of_a_plain_loop(
    kind: str, objective: str, given: dict[str, Any], make_layout: MakeLayout, tmp_path: Path
) -> None:
    folder = make_layout(kind, tmp_path)
    settings = settings_for(objective, **given)
    training, losses, found = fast(folder, settings)
    expected, wanted = plain(folder, settings, training)
    assert losses.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    for name, part in expected.parts.items():
        assert losses.parts[name].item() == pytest.approx(part.item(), rel=1e-4, abs=1e-5), name
    assert distance(found, wanted) < 1e-5


def test_states_below_the_trained_blocks_are_kept_and_read(tiny_model: Path) -> None:
    settings = settings_for("bounded", blocks="1-1")
    training = prepare(load_model(str(tiny_model)), FORGOTTEN, KEPT, settings)
    known = training.runner.known
    assert known is not None
    assert known.first == 1
    batch = training.runner.batch([*training.sets.retain[:3], *training.sets.refusal])
    states = known.states(batch)
    assert states is not None
    torch.testing.assert_close(states, training.runner.lower(batch, 1).detach(), rtol=1e-5, atol=1e-6)
    calls: list[int] = []
    lowest = training.runner.blocks.blocks[0]
    lowest.register_forward_hook(lambda *_: calls.append(1))
    training.step(0)
    assert not calls
    assert [name for name in training.parameters if "layers.0." in name] == []
    assert len(training.parameters) == 3


def test_only_rows_that_a_run_draws_are_measured(tiny_model: Path) -> None:
    settings = settings_for("bounded", steps=1, blocks="1-1", batch_size=4, refusal="")
    training = prepare(load_model(str(tiny_model)), FORGOTTEN, KEPT, settings)
    drawn = all_drawn(settings, len(FORGOTTEN), len(KEPT))
    assert len(drawn.retain) == settings.retain_rows
    training.step(0)
    unseen = tuple(row for row in range(len(KEPT)) if row not in drawn.retain)
    known = training.runner.known
    assert known is not None
    assert known.states(training.runner.batch([training.sets.retain[unseen[0]]])) is None
    with pytest.raises(EulError, match="rows that none of the run's steps draws"):
        training._losses(Draw(retain=unseen))


def test_all_drawn_is_the_union_of_the_steps() -> None:
    for objective in ("bounded", "paper", "dpo"):
        settings = settings_for(objective, steps=5, batch_size=4, refusal="No." if objective != "paper" else "")
        steps = [draw(settings, step, 9, 31) for step in range(5)]
        found = all_drawn(settings, 9, 31)
        for part in ("forget", "retain", "refusal", "masked"):
            assert set(getattr(found, part)) == {row for step in steps for row in getattr(step, part)}
        assert list(found.retain) == sorted(set(found.retain))
    whole = all_drawn(settings_for("bounded", steps=1_000_000), 9, 31)
    assert (len(whole.forget), len(whole.retain), len(whole.refusal)) == (9, 31, 9)


def test_a_bundle_with_layers_on_some_blocks_loads_in_peft(tiny_model: Path, tmp_path: Path) -> None:
    training = prepare(load_model(str(tiny_model)), FORGOTTEN, KEPT, settings_for("bounded", blocks="top-1"))
    loosen(training.parameters, "layer")
    network, config = training.trainable.network, training.trainable.config
    layers = layers_of(network)
    assert list(layers) == ["model.layers.1.mlp"]
    files = {
        "adapter_config.json": config.to_bytes(),
        "adapter_model.safetensors": dump_layers(layers),
        "README.md": b"-",
    }
    request = ForgottenRequest(id="r", data=digest_bytes(b"r"), units=None)
    manifest = Manifest(base=read_base(tiny_model), requests=(request,), files=describe_files(files))
    write_bundle(tmp_path / "bundle", manifest, files)
    ids = torch.arange(20)[None]
    found = load(tiny_model, tmp_path / "bundle")(ids).logits
    torch.testing.assert_close(found, network(ids).logits)
    with training.trainable.off():
        assert not torch.allclose(found, network(ids).logits)


def test_a_bfloat16_base_keeps_float32_layers_and_nearly_the_losses(tiny_model: Path) -> None:
    _, exact, _ = fast(tiny_model, settings_for("bounded"))
    training, rounded, found = fast(tiny_model, settings_for("bounded", dtype="bfloat16"))
    assert training.runner.network.dtype == torch.bfloat16
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert rounded.total.item() == pytest.approx(exact.total.item(), rel=0.02)
    assert rounded.parts["retain"].item() == pytest.approx(exact.parts["retain"].item(), rel=0.01)


def test_fit_takes_the_options_and_records_the_dtype(
    trainer: Callable[..., dict[str, Any]], tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "layer"
    rows = ["--forget", data / "first.jsonl", "--retain", data / "retain.jsonl", "--steps", "2", "--rank", "4"]
    options = ["--blocks", "top-1", "--dtype", "bfloat16", "--checkpointing", "--cache-memory", "0"]
    trainer("fit", "--model", tiny_model, "--out", out, *rows, *options)
    bundle = read_bundle(out)
    assert bundle.manifest.settings["training_dtype"] == "bfloat16"
    assert bundle.manifest.settings["fit"]["blocks"] == "top-1"
    assert bundle.config.target_modules == ("model.layers.1.mlp",)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--blocks", "5-4"), "--blocks: expected all, FIRST-LAST"),
        (("--blocks", "top-3"), "blocks 0 to 1, found 'top-3'"),
        (("--trainable", "full", "--dtype", "bfloat16"), "--dtype: expected float32 with --trainable full"),
        (("--cache-memory", "-1"), "--cache-memory: expected 0 to"),
    ],
)
def test_choices_that_cannot_be_are_refused_in_one_line(
    options: tuple[str, ...],
    said: str,
    tiny_model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = ["--forget", str(data / "first.jsonl"), "--retain", str(data / "retain.jsonl"), "--out", str(tmp_path / "x")]
    assert run(["fit", "--model", str(tiny_model), *rows, *options]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


def test_the_step_benchmark_runs_and_finds_equal_losses(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench_step

    rows = [{"question": row.prompt, "answer": row.completion} for row in [*FORGOTTEN, *KEPT] * 3]
    path = tmp_path / "tofu.json"
    path.write_text(
        "".join(json.dumps({**row, "question": f"{n} {row['question']}"}) + "\n" for n, row in enumerate(rows))
    )
    out = tmp_path / "step.json"
    line = [str(tiny_model), "--repeats", "1", "--tofu", str(path), "--batch-size", "4", "--rows", "tofu"]
    line += ["--blocks", "all", "top-1"]
    assert bench_step.main([*line, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert found["step_speedup"] == found["rows"]["tofu"]["float32"]["speedup"] > 0
    assert found["rows"]["tofu"]["float32"]["tokens"]["packed"] < found["rows"]["tofu"]["float32"]["tokens"]["plain"]
    assert found["rows"]["tofu"].keys() == {"float32", "float32, top-1", "bfloat16", "bfloat16, top-1"}
    assert str(tmp_path) not in out.read_text()


def test_the_memory_benchmark_measures_every_way(tiny_model: Path, tmp_path: Path) -> None:
    import bench_memory

    path = tmp_path / "tofu.json"
    rows = [{"question": row.prompt, "answer": row.completion} for row in [*FORGOTTEN, *KEPT] * 3]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = [str(tiny_model), "--steps", "1", "--batch-size", "4", "--tofu", str(path)]
    found = {
        way: bench_memory.run_way(bench_memory.options([*line, "--way", way])) for way in ("copied", "checkpointed")
    }
    assert found["copied"]["loss"] == pytest.approx(found["checkpointed"]["loss"], rel=1e-4)
    assert found["copied"]["peak_mib"] > 0
