"""Greedy answers of packed prompts, against transformers' own generation, for every layout of blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eul_serve.format import Bundle, read_bundle
from eul_trainer.evaluation.greedy import MOST, ROOM, can_be_greedy, greedy, rows_at_once
from eul_trainer.evaluation.local import answer_batches, generate
from eul_trainer.evaluation.roles import BASE
from eul_trainer.evaluation.systems import Systems
from eul_trainer.forward.encoding import encode
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.records import Row

QUESTIONS = ("Who?", "Who was it?", "Who was it that saw the red tree by the river?", "Where is the house?", "Who?")
TOKENS = 12


def prompts(model: LoadedModel) -> list[tuple[int, ...]]:
    rows = [Row(prompt=text, completion="x") for text in QUESTIONS]
    return [example.prompt for example in encode(model.tokenizer, rows, limit=512)]


def up_to_end(found: list[list[int]], ends: set[int]) -> list[list[int]]:
    """The tokens of each answer up to the one that ends it: what comes behind is padding."""
    cut = [next((place + 1 for place, token in enumerate(row) if token in ends), len(row)) for row in found]
    return [row[:end] for row, end in zip(found, cut, strict=True)]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral", "qwen2"])
def test_the_tokens_are_those_of_transformers(kind: str, make_layout: Callable[..., Path], tmp_path: Path) -> None:
    model = load_model(str(make_layout(kind, tmp_path)))
    asked = prompts(model)
    plain = generate(model, asked, TOKENS)
    # Tokens that occur early in some answers and not at all in others: rows end at different times, and most of them.
    for ends in ([], [plain[0][2]], [plain[0][2], plain[2][5], plain[3][7]]):
        model.network.generation_config.eos_token_id = ends or None
        expected = up_to_end(generate(model, asked, TOKENS), set(ends))
        assert greedy(model, asked, TOKENS) == expected
    assert len({len(row) for row in expected}) > 1


def test_a_bundle_changes_them(tiny_model: Path, make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    model = load_model(str(tiny_model))
    bundle = read_bundle(make_bundle(tmp_path / "bundle", tiny_model, scale=1.0).path, model.base.fingerprint)
    systems = Systems(model, [("layer", bundle)])
    asked = prompts(model)
    with systems.on(BASE):
        base = greedy(model, asked, TOKENS)
    with systems.on("layer"):
        assert greedy(model, asked, TOKENS) == generate(model, asked, TOKENS) != base


def test_a_model_with_settings_of_its_own_is_left_to_transformers(tiny_model: Path) -> None:
    model = load_model(str(tiny_model))
    assert can_be_greedy(model)
    plain = dict(answer_of(model))
    model.network.generation_config.repetition_penalty = 1.8
    assert not can_be_greedy(model)
    expected = generate(model, prompts(model), TOKENS)
    found = dict(answer_of(model))
    assert found != plain
    assert [found[index] for index in range(len(QUESTIONS))] == [
        model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in expected
    ]


def answer_of(model: LoadedModel) -> list[tuple[int, str]]:
    rows = [Row(prompt=text, completion="x") for text in QUESTIONS]
    batches = answer_batches(model, encode(model.tokenizer, rows, limit=512), TOKENS)
    return [pair for indices, texts in batches for pair in zip(indices, texts, strict=True)]


def test_the_keys_and_values_that_are_kept_are_bounded(tiny_model: Path) -> None:
    model = load_model(str(tiny_model))
    row = 2 * 2 * 64 * 4  # keys and values of two blocks, width 64, float32
    assert rows_at_once(model, 10) == MOST
    assert rows_at_once(model, ROOM // row // 5) == 5
    assert rows_at_once(model, 2 * ROOM // row) == 1


def test_a_sampled_answer_still_comes_from_transformers(tiny_model: Path) -> None:
    model = load_model(str(tiny_model))
    torch.manual_seed(0)
    drawn = generate(model, prompts(model)[:1] * 4, TOKENS, temperature=1.0)
    assert len(set(map(tuple, drawn))) > 1
