"""Attacks: what each makes of a row by hand, the share that comes back, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_serve.format import Bundle
from eul_trainer.attacks.choosing import choosing, decoys
from eul_trainer.attacks.prompts import SHOTS, WORDS, PromptAttack, prompt_attacks
from eul_trainer.attacks.relearning import RelearnSettings, draw_known, relearn
from eul_trainer.attacks.result import AttackResult
from eul_trainer.attacks.rounding import PARTS, round_network, round_weights
from eul_trainer.attacks.sampling import sampling
from eul_trainer.evaluation.systems import Systems
from eul_trainer.evaluation.view import View
from eul_trainer.forward.encoding import Example, encode
from eul_trainer.forward.losses import row_scores
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import load_model
from eul_trainer.records import Row, read_rows

from .conftest import RunTrainer, write_rows

ROWS = [
    Row(prompt="Who {is} Ann?", completion="Ann is a painter from Rome.", group="a", where="f:1"),
    Row(prompt="Who is Bob?", completion="A sailor."),
    Row(prompt="Who is Eve?", completion="Nobody knows."),
]


def named(seed: int = 0) -> dict[str, PromptAttack]:
    return {attack.name: attack for attack in prompt_attacks(seed)}


def test_formats_change_the_question_alone() -> None:
    for name, attack in named().items():
        if not name.startswith("format-"):
            continue
        assert attack.budget == 0
        made = attack.make(ROWS)
        for row, found in zip(ROWS, made, strict=True):
            assert found is not None
            assert found.prompt != row.prompt
            assert row.prompt.casefold() in found.prompt.casefold()  # braces in a question stay as they are
            assert (found.completion, found.group, found.where) == (row.completion, row.group, row.where)
    assert named()["format-capitals"].make(ROWS[1:])[0] == Row(prompt="WHO IS BOB?", completion="A sailor.")


def test_a_paraphrase_asks_in_the_rows_other_words() -> None:
    told = replace(ROWS[0], extra={"paraphrased_question": "Tell me of Ann."})
    assert named()["paraphrase"].make([told, ROWS[1]]) == [replace(told, prompt="Tell me of Ann."), None]
    assert named()["paraphrase"].budget == 0


def test_a_prefix_gives_words_of_the_answer_and_asks_for_the_rest() -> None:
    found = named()["prefix-2"].make(ROWS)
    assert found[0] is not None
    assert found[0].completion == "a painter from Rome."
    assert 'begins with "Ann is"' in found[0].prompt
    assert found[1] is None  # two words: nothing is left
    assert [named()[f"prefix-{count}"].budget for count in WORDS] == list(WORDS)


def test_examples_are_other_rows_with_their_answers() -> None:
    found = named()["examples-1"].make(ROWS)
    for row, made in zip(ROWS, found, strict=True):
        assert made is not None
        assert made.completion == row.completion
        assert made.prompt.endswith(f"Question: {row.prompt}\nAnswer:")
        assert row.completion not in made.prompt
        assert sum(other.completion in made.prompt for other in ROWS) == 1
    assert named()["examples-3"].make(ROWS) == [None] * 3
    assert named()["examples-1"].make(ROWS) == found
    many = [Row(prompt=f"{number}?", completion=f"It is {number}.") for number in range(40)]
    assert named(1)["examples-1"].make(many) != named(0)["examples-1"].make(many)
    assert [named()[f"examples-{count}"].budget for count in SHOTS] == list(SHOTS)
    twice = [ROWS[1], ROWS[1]]
    assert named()["examples-1"].make(twice) == [None, None]  # the same question would give the answer away


def test_the_share_that_comes_back_lies_between_the_twin_and_the_base_model() -> None:
    def result(layer: float, twin: float | None, base: float = 0.9) -> AttackResult:
        systems = {"base": {"rouge_l": base}, "layer": {"rouge_l": layer}}
        if twin is not None:
            systems["twin"] = {"rouge_l": twin}
        return AttackResult(kind="prompts", name="n", budget=0, set="s", rows=3, systems=systems)

    assert result(0.3, 0.1).recovered("layer")["rouge_l"] == pytest.approx(0.25)
    assert result(0.0, 0.1).recovered("layer")["rouge_l"] == pytest.approx(-0.125)  # less than one who never knew
    assert set(result(0.3, 0.1).recovered("layer")) == {"rouge_l"}
    assert result(0.3, None).recovered("layer")["rouge_l"] is None
    assert result(0.3, 0.1).recovered("base")["rouge_l"] == 1
    assert result(0.3, 0.86).recovered("layer")["rouge_l"] is None  # nothing to bring back
    assert result(0.3, 0.1).to_json()["recovered"]["twin"]["rouge_l"] == 0


def test_rounding_by_hand() -> None:
    """Four bits have 7 steps on each side: of 7, 3.4 and -0.6 the nearest are 7, 3 and -1; each row has its scale."""
    weight = torch.tensor([[7.0, 3.4, -0.6], [0.7, 0.34, -0.06], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[7.0, 3.0, -1.0], [0.7, 0.3, -0.1], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(round_weights(weight, 4), expected)
    torch.testing.assert_close(round_weights(weight.T, 4, dim=0), expected.T)
    assert round_weights(weight.bfloat16(), 8).dtype == torch.bfloat16


@given(st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4), st.sampled_from([2, 4, 8]))
def test_rounding_twice_changes_nothing_more_and_never_moves_far(values: list[float], bits: int) -> None:
    weight = torch.tensor([values])
    once = round_weights(weight, bits)
    torch.testing.assert_close(round_weights(once, bits), once)
    assert (once - weight).abs().max() <= weight.abs().max() / (2 ** (bits - 1) - 1) / 2 + 1e-5


def test_a_network_is_rounded_where_it_should_be(
    tiny_model: Path, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "layer", tiny_model)
    counts = {}
    for part in PARTS:
        systems = Systems(load_model(str(tiny_model)), [("layer", bundle)])
        network = systems.model.network
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        counts[part] = round_network(network, 4, part)
        changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
        assert any("eul_" in name for name in changed) == (part != "base")
        assert any("q_proj" in name for name in changed) == (part != "layer")
        assert not any("embed" in name or "head" in name or "norm" in name for name in changed)
    assert counts["both"] == counts["base"] + counts["layer"]


def test_attack_rounding_writes_a_result_for_each_part_and_bits(
    tiny_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path, trainer: RunTrainer
) -> None:
    bundle = make_bundle(tmp_path / "layer", tiny_model)
    found = trainer("attack", "rounding", "--model", tiny_model, "--bundle", bundle.path, "--forget",
                    data / "first.jsonl", "--answer-tokens", "2", "--out", tmp_path / "attacked")  # fmt: skip
    assert [(attack["name"], attack["budget"]) for attack in found["attacks"]] == [
        ("plain", 32), ("base-8", 8), ("base-4", 4), ("layer-8", 8), ("layer-4", 4), ("both-8", 8), ("both-4", 4),
    ]  # fmt: skip
    base = {attack["name"]: attack["systems"]["base"]["loss"] for attack in found["attacks"]}
    layer = {attack["name"]: attack["systems"]["layer"]["loss"] for attack in found["attacks"]}
    assert base["layer-4"] == base["plain"] != base["base-8"] != base["base-4"]
    assert layer["plain"] != layer["layer-4"] != layer["both-4"]
    assert base["both-4"] == base["base-4"]


def seen(*ranks: int, loss: float = 1.0) -> View:
    return View(logprobs=[-loss] * len(ranks), ranks=list(ranks), means=[], deviations=[])


def test_decoys_are_a_rows_own_wrong_answers_or_those_of_others() -> None:
    own = Row(prompt="Who is Ann?", completion="A painter.", extra={"perturbed_answers": ["A cook."]})
    found = decoys([own, *ROWS[1:], Row(prompt="Who is Zed?", completion="a  SAILOR.")], count=2)
    assert [row.completion for row in found[0]] == ["A cook."]
    assert len(found[1]) == 2
    assert {row.prompt for row in found[1]} == {"Who is Bob?"}
    assert "a  SAILOR." not in [row.completion for row in found[1]]  # the true answer in other letters
    assert decoys(ROWS[:1]) == [[]]
    assert decoys(ROWS, count=1, seed=0) == decoys(ROWS, count=1, seed=0)


def test_choosing_by_hand() -> None:
    """Of two rows with two and one decoys one is chosen right; guessing gives (1/3 + 1/2) / 2."""
    wrong = [[ROWS[1], ROWS[2]], [ROWS[0]], []]
    rows = [seen(0, 4, loss=1.0), seen(0, 30, loss=2.0), seen(7, 20, loss=0.0)]
    views = {"layer": [*rows, seen(0, loss=1.5), seen(0, loss=1.2), seen(0, loss=1.9)]}
    found = {result.name: result for result in choosing(ROWS, wrong, views, "alice")}
    choice = found["choice"]
    assert choice.systems["layer"] == {"chosen": 0.5, "chance": pytest.approx(5 / 12, abs=1e-6)}
    assert (choice.rows, choice.budget, choice.set) == (2, 1.5, "alice")
    shares = [found[f"top-{top}"].systems["layer"]["seen"] for top in (1, 5, 20)]
    assert shares == [pytest.approx(2 / 6, abs=1e-6), pytest.approx(3 / 6), pytest.approx(4 / 6, abs=1e-6)]
    assert [result.name for result in choosing(ROWS[:1], [[]], {"layer": rows[:1]}, "a")] == [
        "top-1",
        "top-5",
        "top-20",
    ]


def test_sampling_takes_the_best_of_so_many_answers() -> None:
    rows = [Row(prompt="p", completion="one two"), Row(prompt="q", completion="red")]
    answers = {"layer": [["none", "one", "one two"], ["blue", "red", "blue"]]}
    found = sampling(rows, answers, "alice", 0.7)
    assert [(result.name, result.budget) for result in found] == [
        ("best-of-1-at-0.7", 1), ("best-of-2-at-0.7", 2), ("best-of-3-at-0.7", 3),
    ]  # fmt: skip
    assert [result.systems["layer"]["rouge_l"] for result in found] == [0.0, 0.75, 1.0]


def test_attacks_on_log_probabilities_and_by_sampling(
    tiny_model: Path, other_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path,
    trainer: RunTrainer,
) -> None:  # fmt: skip
    (tmp_path / "alice.jsonl").write_text("\n".join((data / "first.jsonl").read_text().splitlines()[:3]) + "\n")
    bundle = make_bundle(tmp_path / "layer", tiny_model)
    line = ["--model", tiny_model, "--bundle", bundle.path, "--forget", tmp_path / "alice.jsonl", "--twin", other_model,
            "--answer-tokens", "4", "--cache", tmp_path / "cache"]  # fmt: skip
    found = trainer("attack", "choosing", *line, "--out", tmp_path / "choosing")
    assert [(attack["name"], attack["rows"]) for attack in found["attacks"]] == [
        ("choice", 3), ("top-1", 3), ("top-5", 3), ("top-20", 3),
    ]  # fmt: skip
    assert list(found["attacks"][0]["systems"]) == ["base", "layer", "twin"]
    tops = [attack["systems"]["base"]["seen"] for attack in found["attacks"][1:]]
    assert tops == sorted(tops)
    drawn = [
        trainer("attack", "sampling", *line, "--draws", "6", *more, "--out", tmp_path / f"sampling{number}")["attacks"]
        for number, more in enumerate([(), (), ("--seed", "1")])
    ]
    assert [attack["budget"] for attack in drawn[0]] == [1, 2, 5, 6]
    assert drawn[0] == drawn[1]
    folder = tmp_path / "cache"
    texts = [json.loads(text)["value"] for path in folder.glob("sample-*") for text in path.read_text().splitlines()]
    assert len(texts) == 2 * 3 * 3  # two seeds, three systems, three rows; the second run drew nothing
    assert all(len(set(part)) > 1 for part in texts)
    # Two seeds, two models and three rows all draw differently; a random layer may change nothing.
    assert len({tuple(part) for part in texts}) >= 2 * 2 * 3


def test_the_attacker_knows_some_rows_and_is_asked_the_others() -> None:
    known, asked = draw_known(ROWS, 2, seed=0)
    assert (len(known), len(asked)) == (2, 1)
    assert {row.prompt for row in [*known, *asked]} == {row.prompt for row in ROWS}
    assert draw_known(ROWS, 2, seed=0) == (known, asked)
    for count in (0, 3):
        with pytest.raises(InputError, match="--known: expected 1 to 2 of 3"):
            draw_known(ROWS, count, seed=0)


def test_relearning_trains_a_lora_alone_and_learns(
    tiny_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    rows = read_rows(data / "first.jsonl")
    bundle = make_bundle(tmp_path / "layer", tiny_model)
    settings = RelearnSettings(steps=(0, 3, 20), learning_rate=0.01)
    systems = Systems(load_model(str(tiny_model)), [("layer", bundle)])
    before = {name: tensor.clone() for name, tensor in systems.model.network.state_dict().items()}
    with systems.on("layer"):
        expected = [score.loss for score in row_scores(*runner(systems, rows[:4]))]
    curve = dict(relearn(systems, "layer", rows[:4], rows[:4], settings))
    assert list(curve) == [0, 3, 20]
    assert curve[0]["loss"] == pytest.approx(sum(expected) / 4, abs=1e-4)  # a fresh LoRA changes nothing
    losses = [float(point["loss"] or 0) for point in curve.values()]
    assert losses[2] < losses[1] < losses[0]
    old = {name.replace(".base_layer", ""): tensor for name, tensor in before.items()}
    new = {name.replace(".base_layer", ""): tensor for name, tensor in systems.model.network.state_dict().items()}
    assert all(torch.equal(tensor, old[name]) for name, tensor in new.items() if "lora_" not in name)
    assert set(old) < set(new)


def runner(systems: Systems, rows: list[Row]) -> tuple[Runner, list[Example]]:
    examples = encode(systems.model.tokenizer, rows, limit=512)
    return Runner(systems.model, examples), examples


def test_attack_relearning_gives_a_curve_for_each_number_of_known_rows(
    tiny_model: Path, other_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path,
    trainer: RunTrainer,
) -> None:  # fmt: skip
    bundle = make_bundle(tmp_path / "layer", tiny_model)
    line = ["attack", "relearning", "--model", tiny_model, "--bundle", bundle.path, "--forget", data / "first.jsonl",
            "--twin", other_model]  # fmt: skip
    found = trainer(*line, "--known", "2", "--known", "4", "--out", tmp_path / "attacked")
    assert [(attack["name"], attack["budget"], attack["rows"]) for attack in found["attacks"]] == [
        (f"known-{known}-steps-{step}", step, 12 - known) for known in (2, 4) for step in (0, 1, 2, 5, 10, 20)
    ]
    assert set(found["attacks"][0]["systems"]) == {"base", "layer", "twin"}
    related = trainer(*line, "--related", data / "second.jsonl", "--out", tmp_path / "related")
    assert {attack["rows"] for attack in related["attacks"]} == {12}
    plain = related["attacks"][0]["systems"]
    assert plain["base"]["loss"] != plain["twin"]["loss"]


def test_attack_prompts_writes_what_every_way_of_asking_brings_back(
    tiny_model: Path, other_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path,
    trainer: RunTrainer,
) -> None:  # fmt: skip
    rows = (data / "first.jsonl").read_text().splitlines()[:2]
    told = [
        {**json.loads(row), "paraphrased_question": f"In other words: {number}?"} for number, row in enumerate(rows)
    ]
    write_rows(tmp_path / "alice.jsonl", told)
    bundle = make_bundle(tmp_path / "layer", tiny_model)
    found = trainer("attack", "prompts", "--model", tiny_model, "--bundle", bundle.path,
                    "--forget", tmp_path / "alice.jsonl", "--twin", other_model, "--answer-tokens", "3",
                    "--out", tmp_path / "attacked")  # fmt: skip
    assert json.loads((tmp_path / "attacked" / "attack.json").read_text())["attacks"] == found["attacks"]
    by_name = {attack["name"]: attack for attack in found["attacks"]}
    # Answers have five words and there are two rows, so eight known words and three examples have no row left.
    assert set(by_name) == {"plain", *named()} - {"prefix-8", "examples-3", "examples-5"}
    assert by_name["prefix-2"]["budget"] == 2
    assert {attack["rows"] for attack in found["attacks"]} == {2}
    assert set(by_name["plain"]["systems"]) == {"base", "layer", "twin"}
    losses = {name: attack["systems"]["base"]["loss"] for name, attack in by_name.items()}
    assert len({round(loss, 4) for loss in losses.values()}) > 5  # they ask differently


def test_another_bundle_or_none_answers_in_the_place_of_the_right_one(
    tiny_model: Path, other_model: Path, data: Path, make_bundle: Callable[..., Bundle], tmp_path: Path,
    trainer: RunTrainer,
) -> None:  # fmt: skip
    layer = make_bundle(tmp_path / "layer", tiny_model, scale=1.0)
    other = make_bundle(tmp_path / "layer-2", tiny_model, scale=1.0, seed=5, requests=("other",))
    line = ["attack", "replacing", "--model", tiny_model, "--bundle", layer.path, "--forget", data / "first.jsonl",
            "--twin", other_model, "--answer-tokens", "2", "--cache", tmp_path / "cache"]  # fmt: skip
    found = trainer(*line, "--other", other.path, "--out", tmp_path / "attacked")
    by_name = {attack["name"]: attack for attack in found["attacks"]}
    assert [(name, attack["budget"]) for name, attack in by_name.items()] == [
        ("plain", 0), ("off", 1), ("layer-2 instead", 1),
    ]  # fmt: skip
    assert set(found["systems"]) == {"base", "layer", "layer-2"}
    systems = {name: attack["systems"] for name, attack in by_name.items()}
    assert all(set(shown) == {"base", "layer", "twin"} for shown in systems.values())
    assert len({shown["base"]["loss"] for shown in systems.values()}) == 1
    assert systems["off"]["layer"] == systems["off"]["base"] != systems["plain"]["layer"]
    alone = trainer("attack", "replacing", *line[2:4], "--bundle", other.path, *line[6:],
                    "--out", tmp_path / "alone")["attacks"]  # fmt: skip
    assert [attack["name"] for attack in alone] == ["plain", "off"]
    assert systems["layer-2 instead"]["layer"] == alone[0]["systems"]["layer-2"]
