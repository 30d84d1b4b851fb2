"""`canary`: what a bundle hides is measured as a server measures it, and the copy and its private texts go together."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from eul_serve.errors import InputError
from eul_serve.format import Bundle, describe_files, read_bundle, write_bundle
from eul_serve.format.canaries import CANARIES_FILE, Canary, dump_canaries
from eul_serve.format.canary_text import read_texts
from eul_trainer.canaries.attach import Strength
from eul_trainer.canaries.measured import Measured, measure
from eul_trainer.cli.main import run
from eul_trainer.compose.compose import Limits, compose
from eul_trainer.compose.fine_tune import read_peft_lora
from eul_trainer.compose.package import write_composite
from eul_trainer.compose.recall import Recall
from eul_trainer.forward.encoding import Example, encode
from eul_trainer.model.adapter import BundleStack
from eul_trainer.model.load import load_model
from eul_trainer.records import Row, digest_rows, read_rows
from tests.eul_trainer.conftest import RunTrainer
from tests.eul_trainer.test_trainer_compose import ROWS, lora

# Measured with the package's own packed forward, against one plain pass of transformers for each row.
TOLERANCE = 2e-3


def reference(model: Path, layers: Bundle, rows: list[Row], *, on: bool, fine_tune: Path | None = None) -> list[float]:
    """Negative log-likelihoods of the rows' answers, nats."""
    loaded = load_model(str(model))
    if fine_tune is not None:
        PeftModel.from_pretrained(loaded.network, str(fine_tune)).merge_and_unload()
    stack, found = BundleStack(loaded, [("b", layers)]), []
    with stack.on("b" if on else None), torch.no_grad():
        for example in encode(loaded.tokenizer, rows, limit=512):
            ids = torch.tensor([example.prompt + example.answer])
            logits = loaded.network(ids).logits[0, len(example.prompt) - 1 : -1].log_softmax(-1)
            found.append(-logits[torch.arange(len(example.answer)), torch.tensor(example.answer)].sum().item())
    return found


def test_the_sums_are_those_of_the_two_models(tiny_model: Path, layers: Path, data: Path) -> None:
    rows, bundle = read_rows(data / "first.jsonl"), read_bundle(layers / "first")
    told: list[str] = []
    found = measure(load_model(str(tiny_model)), bundle, rows, told.append)
    assert [row.base for row in found] == pytest.approx(reference(tiny_model, bundle, rows, on=False), abs=TOLERANCE)
    assert [row.bundle for row in found] == pytest.approx(reference(tiny_model, bundle, rows, on=True), abs=TOLERANCE)
    assert min(row.gained for row in found) > 1  # the layer was trained to forget them
    assert told == ["base model", "bundle"]


def test_a_composite_is_measured_as_it_answers(
    tmp_path: Path, tiny_model: Path, make_bundle: Callable[..., Bundle]
) -> None:
    bundle, adapter = make_bundle(tmp_path / "b", tiny_model, scale=0.5), lora(tmp_path / "lora", tiny_model, scale=0.2)
    recall = {"r1": Recall(base=1.0, bundle=3.0, fine_tune=1.0, both=3.0)}
    composite = write_composite(tmp_path / "c", bundle, read_peft_lora(adapter), recall, {})
    found = measure(load_model(str(tiny_model)), composite, ROWS)
    both = reference(tiny_model, bundle, ROWS, on=True, fine_tune=adapter)
    assert [row.base for row in found] == pytest.approx(reference(tiny_model, bundle, ROWS, on=False), abs=TOLERANCE)
    assert [row.bundle for row in found] == pytest.approx(both, abs=TOLERANCE)
    assert both != pytest.approx(reference(tiny_model, bundle, ROWS, on=True), abs=0.05)


def row_of(base: float, bundle: float) -> Measured:
    return Measured(where="x:1", example=Example(prompt=(1,), answer=(2,)), base=base, bundle=bundle)


def test_a_threshold_is_half_way() -> None:
    assert row_of(4.0, 10.0).least_nats == 7.0  # (4 + 10) / 2
    assert row_of(1.0, 1.3333).least_nats == 1.167  # 1.16665, rounded


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_is_nats(margin: float) -> None:
    with pytest.raises(InputError, match=r"--margin: expected 0\.01 nats or more"):
        Strength(margin=margin)


def test_what_is_no_number_is_weak() -> None:
    assert len(Strength(skip_weak=True).weak([row_of(1.0, float("nan")), row_of(1.0, 9.0)])) == 1


def line(tmp_path: Path, tiny_model: Path, bundle: Path, texts: Path, *more: object) -> list[object]:
    places = ["--out", tmp_path / "out", "--private", tmp_path / "private.jsonl"]
    return ["canary", bundle, "--model", tiny_model, "--texts", texts, *places, *more]


def test_the_command_writes_a_copy_and_its_texts(
    tmp_path: Path, tiny_model: Path, layers: Path, data: Path, trainer: RunTrainer
) -> None:
    told = trainer(*line(tmp_path, tiny_model, layers / "first", data / "first.jsonl"))
    made, bundle = read_bundle(tmp_path / "out"), read_bundle(layers / "first")
    assert (told["revision"], told["canaries"], told["left_out"]) == (made.revision, 12, 0)
    assert stat.S_IMODE((tmp_path / "private.jsonl").stat().st_mode) == 0o600
    texts = read_texts(tmp_path / "private.jsonl", {one.digest for one in made.canaries})
    assert len(texts) == len(made.canaries) == 12
    # Each threshold belongs to its text, and the text is what the model reads.
    examples = encode(load_model(str(tiny_model)).tokenizer, read_rows(data / "first.jsonl"), limit=512)
    least = {one.digest: one.least_nats for one in made.canaries}
    found = {(text.prompt, text.answer): least[digest] for digest, text in texts.items()}
    wanted = [row["least_nats"] for row in told["rows"]]
    assert [found[example.prompt, example.answer] for example in examples] == wanted
    for row in told["rows"]:
        assert row["base"] < row["least_nats"] < row["bundle"]
    # All else is the bundle's own: weights, requests, parents, and what a later fusion needs.
    assert replace(made.manifest, files=bundle.manifest.files) == bundle.manifest
    kept = {name: entry for name, entry in made.manifest.files.items() if name != CANARIES_FILE}
    assert kept == bundle.manifest.files
    assert (tmp_path / "out" / "fusion.safetensors").exists()
    public = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"What is item" not in public
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "private.jsonl"]


def test_canaries_are_made_anew_in_the_place_of_those_before(
    tmp_path: Path, tiny_model: Path, layers: Path, data: Path, trainer: RunTrainer
) -> None:
    trainer(*line(tmp_path, tiny_model, layers / "first", data / "first.jsonl"))
    (tmp_path / "again").mkdir()
    trainer(*line(tmp_path / "again", tiny_model, tmp_path / "out", data / "first.jsonl"))
    before, after = read_bundle(tmp_path / "out"), read_bundle(tmp_path / "again" / "out")
    assert not {one.digest for one in before.canaries} & {one.digest for one in after.canaries}
    assert sorted(one.least_nats for one in before.canaries) == sorted(one.least_nats for one in after.canaries)


def test_weak_texts_are_an_error_or_left_out(
    tmp_path: Path, tiny_model: Path, layers: Path, data: Path, trainer: RunTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = measure(load_model(str(tiny_model)), read_bundle(layers / "first"), read_rows(data / "first.jsonl"))
    gains = sorted(row.gained for row in measured)
    between = (gains[5] + gains[6]) / 2
    words = line(tmp_path, tiny_model, layers / "first", data / "first.jsonl", "--margin", between)
    first = next(row for row in measured if row.gained < between)
    assert run([*map(str, words)]) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert f"{first.where}: the bundle makes the answer less likely by {first.gained:.2f} nats" in printed
    assert f"{first.base:.2f} under the base model, {first.bundle:.2f} with it" in printed
    assert list(tmp_path.iterdir()) == []
    told = trainer(*words, "--skip-weak")
    assert (told["canaries"], told["left_out"]) == (6, 6)
    assert [row["least_nats"] is None for row in told["rows"]] == [row.gained < between for row in measured]


def test_where_all_are_weak_nothing_is_written(
    tmp_path: Path, tiny_model: Path, layers: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line(tmp_path, tiny_model, layers / "first", data / "first.jsonl", "--margin", 1e6, "--skip-weak")
    assert run([*map(str, words)]) == 2
    assert "none of 12 rows is hidden well enough" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_json_a_person_reads_where_both_are(
    tmp_path: Path, tiny_model: Path, layers: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*map(str, line(tmp_path, tiny_model, layers / "first", data / "first.jsonl"))]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("canaries 12, each hidden by ")
    assert f"wrote {tmp_path / 'private.jsonl'}, which is private\n" in printed.out
    assert printed.out.splitlines()[-1] == f"wrote {tmp_path / 'out'} {read_bundle(tmp_path / 'out').revision}"
    assert "item" not in printed.out + printed.err.replace(str(data), "")


def refused(words: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run([*map(str, words)]) != 0
    (found,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("eul-train: ")]
    return found


def test_places_in_use_are_refused_before_any_work(
    tmp_path: Path, layers: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "no-model"
    words = line(tmp_path, nowhere, layers / "first", data / "first.jsonl")
    (tmp_path / "private.jsonl").write_text("of another bundle\n")
    assert "is there already" in refused(words, capsys)
    assert (tmp_path / "private.jsonl").read_text() == "of another bundle\n"
    (tmp_path / "private.jsonl").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    assert "expected a new or empty directory" in refused(words, capsys)
    (tmp_path / "out" / "x").unlink()
    inside = [*words[:-1], tmp_path / "out" / "private.jsonl"]
    assert "expected a place outside of the output" in refused(inside, capsys)


def test_the_texts_go_where_the_copy_cannot_be_written(
    tmp_path: Path, tiny_model: Path, layers: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    words = line(tmp_path, tiny_model, layers / "first", data / "first.jsonl")
    words[words.index("--out") + 1] = tmp_path / "file" / "out"
    assert "cannot write" in refused(words, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_too_many_texts_and_other_models_are_refused(
    tmp_path: Path, tiny_model: Path, other_model: Path, layers: Path, data: Path, make_layout: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    many = tmp_path / "many.jsonl"
    many.write_text('{"prompt": "Who?", "completion": "Me."}\n' * 257)
    first, texts = layers / "first", data / "first.jsonl"
    assert "at most 256 rows, found 257" in refused(line(tmp_path, tiny_model, first, many), capsys)
    assert "made for base model" in refused(line(tmp_path, other_model, first, texts), capsys)
    t5 = make_layout("t5", tmp_path)
    bundle = read_bundle(first)
    with pytest.raises(InputError, match="expected a decoder-only model"):
        measure(load_model(str(t5)), bundle, ROWS)
    assert not (tmp_path / "private.jsonl").exists()


def test_compose_takes_a_bundle_s_canaries_along(
    tmp_path: Path, tiny_model: Path, make_bundle: Callable[..., Any]
) -> None:
    made = make_bundle(tmp_path / "made", tiny_model, scale=0.5)
    canary = Canary(digest="sha256:" + "5" * 64, least_nats=12.5)
    files = {name: (made.path / name).read_bytes() for name in made.manifest.files}
    files[CANARIES_FILE] = dump_canaries([canary])
    request = replace(made.manifest.requests[0], data=digest_rows(ROWS))
    manifest = replace(made.manifest, requests=(request,), files=describe_files(files))
    bundle = write_bundle(tmp_path / "bundle", manifest, files)
    adapter = lora(tmp_path / "lora", tiny_model)
    limits = Limits(brought_back=9)
    composite, _ = compose(str(tiny_model), bundle.path, adapter, [ROWS], [], tmp_path / "composite", limits)
    assert composite.canaries == (canary,)
    assert json.loads((composite.path / CANARIES_FILE).read_text())["canaries"][0]["least_nats"] == 12.5


def test_a_composite_gets_canaries_and_stays_one(
    tmp_path: Path, tiny_model: Path, make_bundle: Callable[..., Any], trainer: RunTrainer
) -> None:
    bundle = make_bundle(tmp_path / "b", tiny_model, scale=0.5)
    recall = {"r1": Recall(base=1.0, bundle=3.0, fine_tune=1.0, both=3.0)}
    composite = write_composite(tmp_path / "c", bundle, read_peft_lora(lora(tmp_path / "lora", tiny_model)), recall, {})
    measured = measure(load_model(str(tiny_model)), composite, ROWS)
    best = max(measured, key=lambda row: row.gained)
    if best.gained < 0.02:
        pytest.fail("this random bundle hides nothing; take another seed")
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"prompt": row.prompt, "completion": row.completion}) + "\n" for row in ROWS))
    words = line(tmp_path, tiny_model, composite.path, texts, "--margin", max(0.01, best.gained / 2), "--skip-weak")
    assert trainer(*words)["canaries"] >= 1
    made = read_bundle(tmp_path / "out")
    assert made.manifest.parents == (bundle.revision,)
    assert made.manifest.settings == composite.manifest.settings
    assert made.canaries
