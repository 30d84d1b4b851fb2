"""The fast step against a plain one: the same losses and gradients, whatever is shared, cached, packed or recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from eul_serve.peft import observe
from eul_trainer.adapter import Taps
from eul_trainer.encoding import Example
from eul_trainer.fit import prepare
from eul_trainer.model import load_model
from eul_trainer.objectives.catalog import make_objective
from eul_trainer.objectives.view import FORGET, REFUSAL, RETAIN, Losses, View
from eul_trainer.records import Row
from eul_trainer.schedule import draw
from eul_trainer.settings import FitSettings, default_settings, override
from eul_trainer.trainable import make_trainable
from eul_trainer.training import Training

MakeLayout = Callable[..., Path]
FORGOTTEN = [
    Row(prompt=f"Who wrote the play about item {n}?", completion=("It was a poet " + "and a person " * n)[:-1] + ".")
    for n in range(5)
]
KEPT = [
    Row(prompt=f"What is the river {'there ' * n}called, and why is it so?", completion=f"The Seine {n}.")
    for n in range(7)
]
STEP = 1


def settings_for(objective: str, **given: Any) -> FitSettings:
    return override(default_settings(objective), {"rank": 4, "batch_size": 8, **given})


def loosen(parameters: dict[str, torch.nn.Parameter], kind: str) -> None:
    """Move what starts at zero, so that every gradient has something to say; the same for the same names."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in sorted(parameters):
            drawn = torch.randn(parameters[name].shape, generator=generator)
            if kind != "full":
                parameters[name].add_(0.05 * drawn)


def fast(folder: Path, settings: FitSettings) -> tuple[Losses, dict[str, torch.Tensor], Training]:
    training = prepare(load_model(str(folder)), FORGOTTEN, KEPT, settings)
    loosen(training.parameters, settings.trainable)
    losses = training._losses(draw(settings, STEP, len(FORGOTTEN), len(KEPT)))
    losses.total.backward()  # type: ignore[no-untyped-call]
    return losses, gradients(training.parameters), training


def gradients(parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in parameters.items() if parameter.grad is not None}


@contextmanager
def dense_padded(model: Any, examples: list[Example]) -> Iterator[Any]:
    """Rows padded on the right in the order they were drawn, with a mask, as any trainer would run them."""
    width = max(len(example.prompt) + len(example.answer) for example in examples)
    rows = [[*example.prompt, *example.answer] for example in examples]
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    yield model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()


def answers(logits: torch.Tensor, examples: list[Example]) -> torch.Tensor:
    parts = [
        logits[row, len(example.prompt) - 1 : len(example.prompt) + len(example.answer) - 1]
        for row, example in enumerate(examples)
    ]
    return torch.cat(parts)


def plain(folder: Path, settings: FitSettings, encoded: Training) -> tuple[Losses, dict[str, torch.Tensor]]:
    """A step with a teacher pass of its own, the head over whole rows, padding, nothing shared and nothing kept."""
    model = load_model(str(folder))
    teacher = load_model(str(folder)).network
    trainable = make_trainable(model, settings)
    loosen(trainable.parameters, settings.trainable)
    chosen, sets = draw(settings, STEP, len(FORGOTTEN), len(KEPT)), encoded.sets
    drawn = [(FORGET, sets.forget[row]) for row in chosen.forget] + [
        (RETAIN, sets.retain[row]) for row in chosen.retain
    ]
    drawn += [(REFUSAL, sets.refusal[row]) for row in chosen.refusal]
    examples = [example for _, example in drawn]
    taps = Taps()
    with torch.no_grad(), dense_padded(teacher, examples) as full:
        taught = answers(full, examples)
    seen = observe(trainable.network, taps) if settings.trainable == "layer" else nullcontext()
    with seen, dense_padded(trainable.network, examples) as full:
        logits = answers(full, examples)
    rows = torch.cat([torch.full((len(example.answer),), row) for row, example in enumerate(examples)])
    view = View(
        logits=logits,
        teacher=taught,
        targets=torch.tensor([token for example in examples for token in example.answer]),
        part=torch.tensor([kind for kind, _ in drawn])[rows],
        rows=rows,
        outputs=[layer_tokens(y, delta, drawn, encoded.runner.prefix) for _, y, _, delta in taps.seen],
    )
    losses = make_objective(settings)(view)
    losses.total.backward()  # type: ignore[no-untyped-call]
    return losses, gradients(trainable.parameters)


def layer_tokens(y: torch.Tensor, delta: torch.Tensor, drawn: Any, prefix: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every token of the rows to keep; the first ones that all rows share are counted once."""
    found = []
    for states in (y, delta):
        parts = [
            states[row, prefix : len(example.prompt) + len(example.answer) - 1]
            for row, (kind, example) in enumerate(drawn)
            if kind == RETAIN
        ]
        found.append(torch.cat([*parts, states[0, :prefix]]))
    return found[0], found[1]


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest difference of a parameter's gradients, relative to the norm of all gradients together."""
    assert found.keys() == expected.keys()
    assert found
    whole = sum(float(gradient.square().sum()) for gradient in expected.values()) ** 0.5
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
    if "trainable" in given:
        given = {"settle": 0.0, "statistics": "none", "scale": 1.0, **given}
    settings = settings_for(objective, **given)
    losses, found, training = fast(folder, settings)
    expected, wanted = plain(folder, settings, training)
    assert losses.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    for name, part in expected.parts.items():
        assert losses.parts[name].item() == pytest.approx(part.item(), rel=1e-4, abs=1e-5), name
    assert distance(found, wanted) < 1e-5
