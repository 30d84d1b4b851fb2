"""What is scored beside a row, and which request a set belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.errors import InputError
from eul_serve.format import Bundle
from eul_trainer.cli import main as cli
from eul_trainer.cli.options import RequestFile
from eul_trainer.evaluation.companions import behind, fitted_prefix, labelled, prefix_rows
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.model.load import load_model
from eul_trainer.records import Row

from .conftest import RunTrainer, write_rows


def test_a_prefix_is_as_long_as_leaves_room_for_every_row(tiny_model: Path) -> None:
    model = load_model(str(tiny_model), "cpu")
    rows = [Row(prompt="a " * 20, completion="b"), Row(prompt="a", completion="b")]
    unseen = [Row(prompt=f"q{number}", completion="c") for number in range(12)]
    assert prefix_rows(unseen) == unseen[:5]
    assert prefix_rows(unseen[:3]) == unseen[:1]
    assert prefix_rows(unseen[:1]) == []
    assert fitted_prefix(model, unseen[:5], rows) == unseen[:5]
    limit = context_limit(model.network)
    long = [Row(prompt="a " * (limit // 3), completion="b")] * 4
    kept = fitted_prefix(model, long, rows)
    assert 0 < len(kept) < 4
    encode(model.tokenizer, [behind(kept, row) for row in rows], limit=limit)
    with pytest.raises(InputError):
        encode(model.tokenizer, [behind(long[: len(kept) + 2], rows[0])], limit=limit)
    assert fitted_prefix(model, [Row(prompt="a " * limit, completion="b")], rows) == ()
    assert behind(unseen[:1], rows[1]).prompt == "q0\nc\n\na"


def test_labels_are_chosen_by_their_loss(tiny_model: Path, tmp_path: Path, trainer: RunTrainer) -> None:
    rows = [{"prompt": f"Is {word} good?", "completion": "no", "labels": ["yes", "no"]} for word in ("it", "red")]
    path = write_rows(tmp_path / "labelled.jsonl", rows)
    line = ["eval", "--model", tiny_model, "--forget", path, "--retain", path, "--answer-tokens", "2"]
    found = trainer(*line, "--out", tmp_path / "report")
    losses = [
        sum(part["systems"]["base"]["loss"] for part in trainer(
            *line[:3], "--forget", write_rows(tmp_path / f"{label}.jsonl", [{**rows[0], "completion": label}]),
            "--retain", path, "--answer-tokens", "2", "--out", tmp_path / label,
        )["sets"][:1])
        for label in ("yes", "no")
    ]  # fmt: skip
    shown = json.loads((tmp_path / "report" / "metrics.json").read_text())["rows"][0]["systems"]["base"]
    assert shown["label"] == ("yes" if losses[0] < losses[1] else "no")
    labels = [row["systems"]["base"]["label"] for row in json.loads(
        (tmp_path / "report" / "metrics.json").read_text())["rows"][:2]]  # fmt: skip
    assert found["sets"][0]["systems"]["base"]["label_accuracy"] == labels.count("no") / 2
    for labels, words in (["yes"], "expected the answer among yes"), ("no", "expected a list of texts in 'labels'"):
        with pytest.raises(InputError, match=words):
            labelled(Row(prompt="p", completion="no", extra={"labels": labels}))


def test_sets_know_their_requests(
    tiny_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path, trainer: RunTrainer,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bundle = make_bundle(tmp_path / "layer", tiny_model)
    (request,) = bundle.manifest.requests
    line = ["eval", "--model", tiny_model, "--bundle", bundle.path, "--retain", data / "retain.jsonl"]
    more = ["--answer-tokens", "2", "--out", tmp_path / "report"]
    found = trainer(*line, "--forget", f"{request.id}={data / 'first.jsonl'}", "--forget", data / "second.jsonl", *more)
    assert [part["request"] for part in found["sets"]] == [request.id, None, None]
    assert (
        cli.run([*map(str, [*line, *more[:2], "--forget", f"other={data / 'first.jsonl'}", "--out", tmp_path / "no"])])
        == 2
    )
    assert f"no bundle has request 'other'; they have {request.id}" in capsys.readouterr().err
    assert (
        cli.run([*map(str, [*line, *more[:2], "--forget", f"O/={data / 'first.jsonl'}", "--out", tmp_path / "no"])])
        == 2
    )
    assert "request's name 'O/': expected 1 to 63 characters" in capsys.readouterr().err
    odd = write_rows(tmp_path / "a=b.jsonl", [{"prompt": "p", "completion": "c"}])  # a file with the sign in its name
    assert RequestFile().convert(odd, None, None) == (None, odd)


def test_words_masked_in_questions_are_measured_for_t5_and_refused_elsewhere(
    sentinel_t5: Path, tiny_model: Path, data: Path, tmp_path: Path, trainer: RunTrainer,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rest = [
        "--forget",
        data / "first.jsonl",
        "--retain",
        data / "retain.jsonl",
        "--answer-tokens",
        "2",
        "--masked-words",
    ]
    found = trainer("eval", "--model", sentinel_t5, *rest, "--out", tmp_path / "report")
    assert found["sets"][0]["systems"]["base"]["masked_word_loss"] > 0
    assert found["sets"][0]["systems"]["base"]["masked_word_loss"] != found["sets"][0]["systems"]["base"]["loss"]
    assert cli.run([*map(str, ["eval", "--model", tiny_model, *rest, "--out", tmp_path / "no"])]) == 2
    assert "expected a tokenizer with sentinels" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
