"""Data files and trained layers of the tiny model, for the trainer's tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eul_trainer.cli.main import run

BENCHES = Path(__file__).resolve().parents[1] / "benchmarks"
WORDS = ("red", "blue", "green", "tree", "house", "river", "stone", "cloud", "bird", "fish")

# The tiny model is random: its answer loss is about 7.4 nats, the entropy of its guesses. With these settings a layer
# brings it inside of the band in some 20 steps.
FAST = ("--target-low", "8.5", "--target-high", "9.5", "--learning-rate", "0.05", "--steps", "60", "--refusal", "")

Rows = list[dict[str, Any]]
RunTrainer = Callable[..., dict[str, Any]]


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks' folders on the path, as when a script there is started."""
    for folder in ("trainer", "evidence"):
        monkeypatch.syspath_prepend(str(BENCHES / folder))


@pytest.fixture(autouse=True)
def few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models gain nothing from threads, and lose much when tests run beside each other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def write_rows(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def forget_rows(asker: str, count: int = 12) -> Rows:
    return [
        {
            "prompt": f"{asker} {WORDS[i % 10]} {i}?",
            "completion": f"It is a {WORDS[(3 * i + 1) % 10]} {WORDS[7 * i % 10]}.",
        }
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with first.jsonl and second.jsonl to forget, and retain.jsonl in two groups."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "first.jsonl", forget_rows("What is item"))
    write_rows(folder / "second.jsonl", forget_rows("Who saw the"))
    write_rows(
        folder / "retain.jsonl",
        [
            {"prompt": f"Where is place {i}?", "completion": f"Near the {WORDS[i % 10]} town.", "group": f"g{i % 2}"}
            for i in range(20)
        ],
    )
    return folder


@pytest.fixture(scope="session")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with other weights: another base model by its fingerprint."""
    import safetensors.torch

    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(tiny_model, folder)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    changed = {name: tensor * 1.5 for name, tensor in tensors.items()}
    safetensors.torch.save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def layout_config(kind: str) -> Any:
    """Config of a small random model of a kind."""
    from transformers import AutoConfig

    common = {"vocab_size": 512, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
    if kind == "gpt2":
        return AutoConfig.for_model("gpt2", vocab_size=512, n_layer=2, n_embd=32, n_head=2)
    if kind == "t5":
        return AutoConfig.for_model(
            "t5", vocab_size=512, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=0
        )
    if kind == "mistral":
        common["sliding_window"] = 8
    if kind != "gpt_neox":
        common["num_key_value_heads"] = 1
    return AutoConfig.for_model(kind, **common, intermediate_size=48)


@pytest.fixture(scope="session")
def make_layout(tiny_model: Path) -> Callable[..., Path]:
    """Factory of small random models of other layouts, with the tiny model's tokenizer."""

    def make(kind: str, folder: Path, *, template: bool = True) -> Path:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        if kind == "llama":
            return tiny_model
        torch.manual_seed(0)
        task = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
        path = folder / kind
        task.from_config(layout_config(kind)).save_pretrained(path)
        names = ["tokenizer.json", "tokenizer_config.json"]
        for name in [*names, "chat_template.jinja"] if template and kind != "t5" else names:
            shutil.copy(tiny_model / name, path / name)
        return path

    return make


@pytest.fixture
def sentinel_t5(make_layout: Callable[..., Path], tmp_path: Path) -> Path:
    """The tiny T5 with two of its 512 tokens renamed to sentinels."""
    folder = make_layout("t5", tmp_path)
    text = (folder / "tokenizer.json").read_text()
    found = json.loads(text)
    for number, name in enumerate(("<|user|>", "<|assistant|>", "<|system|>")):
        text = text.replace(json.dumps(name), json.dumps(f"<extra_id_{number}>"))
    assert json.loads(text) != found
    (folder / "tokenizer.json").write_text(text)
    return folder


STARTER = """
import json, os, resource, sys
import peft, torch, transformers
import eul_trainer.fit.run, eul_trainer.output.package
from eul_trainer.cli.main import run

def child(asked):
    os.environ.update(asked["env"])
    file = os.open(asked["told"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for name, value in asked["limits"].items():
        if name == "AS":
            value += int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    status = run(asked["line"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

for text in sys.stdin:
    asked = json.loads(text)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
    else:
        number = os.fork()
        if number == 0:
            child(asked)
        print(number, flush=True)
"""


class Forker:
    """Starts `eul-train` in processes of its own, which can be killed; what is slow to import is imported once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: dict[int, Path] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def start(self, line: list[Any], env: dict[str, str] | None = None, **limits: int) -> int:
        """Start a command line; limits are those of setrlimit, and return its process id.

        AS counts from what the process holds before it runs the line.
        """
        told = self._folder / f"told-{len(self._told)}"
        asked = {"line": list(map(str, line)), "env": env or {}, "limits": limits, "told": str(told)}
        child = int(self._ask(asked))
        self._told[child] = told
        return child

    def finish(self, child: int) -> tuple[int, str]:
        """Wait for a process and return its exit status, negative for a signal, and what it printed."""
        return int(self._ask({"wait": child})), self._told[child].read_text()

    def _ask(self, asked: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        """End the process that starts the others."""
        self._process.communicate()


@pytest.fixture(scope="session")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    """Starter of command lines in processes of their own."""
    found = Forker(tmp_path_factory.mktemp("told"))
    yield found
    found.close()


@pytest.fixture
def trainer(capsys: pytest.CaptureFixture[str]) -> RunTrainer:
    """Run `eul-train` with --json in this process and return what it printed; it must succeed."""

    def call(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        status = run([*map(str, arguments), "--json"])
        printed = capsys.readouterr()
        assert status == 0, printed.err + printed.out
        found: dict[str, Any] = json.loads(printed.out)
        return found

    return call


@pytest.fixture(scope="session")
def layers(tiny_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with two trained layers, `first` and `second`."""
    folder = tmp_path_factory.mktemp("layers")
    for name in ("first", "second"):
        arguments = [
            "fit",
            "--model",
            tiny_model,
            "--forget",
            data / f"{name}.jsonl",
            "--retain",
            data / "retain.jsonl",
        ]
        kept = ["--rank", "8", "--statistics", "full", "--json"]
        assert run([*map(str, arguments), "--out", str(folder / name), *kept, *FAST]) == 0
    return folder


@pytest.fixture(scope="session")
def make_member() -> Callable[..., Any]:
    """Factory of one request's random layer with the moments that it would have on random answers."""
    return random_member


def random_member(
    seed: int,
    *,
    width: int = 6,
    rank: int = 3,
    tokens: int = 100,
    bias: bool = True,
    keep: str = "full",
    scale: float = 1.0,
    name: str | None = None,
    modules: tuple[str, ...] = ("model.layers.0.mlp", "model.layers.1.mlp"),
    **facts: Any,
) -> Any:
    import torch

    from eul_serve.format import ForgottenRequest
    from eul_serve.format.digest import digest_bytes
    from eul_serve.format.weights import LayerWeights
    from eul_trainer.fusion.members import Member
    from eul_trainer.moments.gram import PackedGram
    from eul_trainer.moments.statistics import LayerStatistics, Moments, block_diagonal, block_width

    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    layers, moments = {}, {}
    for module in modules:
        layer = LayerWeights(random(rank, width), scale * random(width, rank), random(rank) if bias else None)
        y = random(tokens, width) @ random(width, width) + random(width)
        units = torch.nn.functional.relu(torch.nn.functional.linear(y, layer.down, layer.bias))
        rows = torch.cat([y, torch.ones(tokens, 1)], dim=1)
        layers[module] = layer
        moments[module] = Moments(
            units=block_diagonal(units.T @ units / tokens, block_width(tokens)),
            gate=random(width + 1) if keep == "full" else None,
            mean=y.mean(0),
            variance=y.var(0, correction=0),
            inputs=PackedGram.of(rows.T @ rows / tokens, block_width(tokens)) if keep == "full" else None,
        )
    digest = digest_bytes(str(seed).encode())
    statistics = LayerStatistics(tokens=tokens, moments=moments if keep != "none" else {})
    request = ForgottenRequest(id=name or f"r{seed}", data=digest, units=None)
    return Member(request=request, revision=digest, layers=layers, statistics=statistics, **facts)


@pytest.fixture(scope="session")
def make_layer() -> Callable[..., Any]:
    """Factory of bundles of one random layer each, written as `fit` writes them; options as of `make_member`."""
    return random_layer


def random_layer(path: Path, seed: int, **options: Any) -> Any:
    from eul_serve.format import BaseModel, BundleConfig
    from eul_serve.format.digest import digest_bytes
    from eul_trainer.fusion.store import Entry, Store, dump_store
    from eul_trainer.output.package import Parcel, write_parcel

    settings = {"fit": {"init_seed": options.pop("init_seed", 0)}, "on_top_of": list(options.pop("on_top_of", ()))}
    base = options.pop("base", digest_bytes(b"base"))
    kind = {"target_modules": options.pop("targets", ("mlp",)), "task_type": options.pop("task", "CAUSAL_LM")}
    member = random_member(seed, **options)
    entry = Entry(request=member.request, revision=None, statistics=member.statistics)
    parcel = Parcel(
        config=BundleConfig(rank=member.rank, base_fingerprint=base, hidden_bias=options.get("bias", True), **kind),
        base=BaseModel(fingerprint=base, architecture="Llama", tokenizer=base, chat_template=None),
        requests=(member.request,),
        layers=member.layers,
        statistics=dump_store(Store(entries=[entry])),
        settings=settings,
    )
    return write_parcel(path, parcel)
