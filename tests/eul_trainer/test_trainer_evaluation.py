"""The evaluator: views against a plain loop of one row at a time, results kept on disk, and going on after a kill."""

from __future__ import annotations

import json
import math
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from eul_serve.errors import CapacityError, InputError
from eul_serve.format import Bundle, read_bundle
from eul_trainer.cli import main as cli
from eul_trainer.evaluation.cache import Cache, RowCache, open_cache
from eul_trainer.evaluation.evaluate import EvalSet, Evaluation, Evaluator
from eul_trainer.evaluation.roles import BASE
from eul_trainer.evaluation.scoring import score
from eul_trainer.evaluation.strangeness import strangeness
from eul_trainer.evaluation.systems import Systems
from eul_trainer.evaluation.view import CHUNK, View
from eul_trainer.forward.encoding import encode
from eul_trainer.model.load import load_model
from eul_trainer.records import Row, read_rows

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def systems(tiny_model: Path, make_bundle: MakeBundle, tmp_path: Path) -> Systems:
    model = load_model(str(tiny_model))
    bundle = read_bundle(make_bundle(tmp_path / "bundle", tiny_model).path, model.base.fingerprint)
    return Systems(model, [("layer", bundle)])


def plain_logits(systems: Systems, name: str, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """The published scripts' way: one whole row through the whole model."""
    example = encode(systems.model.tokenizer, [row], limit=512)[0]
    with torch.no_grad(), systems.on(name):
        logits = systems.model.network(input_ids=torch.tensor([[*example.prompt, *example.answer]])).logits[0].float()
    return logits[len(example.prompt) - 1 : -1].log_softmax(1), torch.tensor(example.answer)


def test_views_equal_those_of_one_row_at_a_time(systems: Systems, data: Path, tmp_path: Path) -> None:
    rows = [*read_rows(data / "first.jsonl"), Row(prompt="Say it.", completion=" ".join(["red tree"] * 40))]
    rows *= 3
    assert sum(len(row.completion.split()) for row in rows) > CHUNK  # more than one piece of the head's work
    with open_cache(tmp_path / "cache") as cache:
        views = score(systems, [BASE, "layer"], rows, cache, lambda more, name: None)
    for index, row in enumerate(rows[:13]):
        base, targets = plain_logits(systems, BASE, row)
        for name in (BASE, "layer"):
            found, _ = plain_logits(systems, name, row)
            view = views[name][index]
            expected = found.gather(1, targets[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(view.logprobs), expected, rtol=1e-4, atol=1e-4)
            assert view.loss == pytest.approx(-expected.mean().item(), rel=1e-4)
            assert view.first == (found.argmax(1) == targets).tolist()
            order = found.argsort(1, descending=True)
            assert view.ranks == pytest.approx((order == targets[:, None]).int().argmax(1).tolist(), abs=1)  # near ties
            mean = (found.exp() * found).sum(1)
            deviation = ((found.exp() * found.square()).sum(1) - mean.square()).clamp_min(0).sqrt()
            torch.testing.assert_close(torch.tensor(view.means), mean, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(torch.tensor(view.deviations), deviation, rtol=1e-2, atol=1e-3)
        assert views[BASE][index].divergence is None
        away = (base.exp() * (base - found)).sum(1).mean().item()
        assert views["layer"][index].divergence == pytest.approx(away, rel=1e-3, abs=1e-6)
    assert views["layer"][0].divergence > 1e-4  # type: ignore[operator]  # the layer does something
    assert views["layer"][0] == views["layer"][13]


def test_losses_alone_are_those_of_whole_views_and_do_not_stand_in_for_them(
    systems: Systems, data: Path, tmp_path: Path
) -> None:
    rows = read_rows(data / "first.jsonl")
    told: Counter[str] = Counter()

    def asked(cache: Cache, rows: Sequence[Row], whole: int) -> dict[str, list[View]]:
        return score(systems, [BASE, "layer"], rows, cache, lambda more, name: told.update({name: more}), whole=whole)

    with open_cache(tmp_path / "whole") as cache:
        expected = asked(cache, rows, len(rows))
    with open_cache(tmp_path / "cache") as cache:
        found = asked(cache, [*rows[:4], *rows[2:]], 4)  # two rows are asked both ways
        assert found["layer"][2:4] == found["layer"][4:6]
        for name, views in found.items():
            assert [view.loss for view in views[4:]] == pytest.approx(
                [view.loss for view in expected[name][2:]], abs=1e-5
            )
            assert [view.ranks for view in views[:4]] == [view.ranks for view in expected[name][:4]]
            assert not any(view.ranks or view.state or view.divergence for view in views[6:])
        assert asked(cache, rows, len(rows))["layer"][-1].divergence is not None
        written = lines(cache.folder)
        assert max(written.values()) == 1
        assert asked(cache, rows[4:], 0)[BASE][0].ranks  # a whole view stands in for losses
        assert lines(cache.folder) == written
    assert told == {name: 3 * len(rows) + 2 + len(rows[4:]) for name in (BASE, "layer")}


def evaluate(
    systems: Systems, sets: Sequence[EvalSet], cache: Cache, watch: Callable[[int, str], None] | None = None
) -> Evaluation:
    evaluator = Evaluator(sets, cache, tokens=4)
    evaluator.watch = watch
    evaluator.measure(systems)
    return evaluator.finish(systems)


def lines(folder: Path) -> Counter[tuple[str, str]]:
    """How often each row's result was written, by file."""
    return Counter(
        (path.name, json.loads(line)["row"])
        for path in folder.glob("*.jsonl")
        for line in path.read_text().splitlines()
    )


def test_an_answer_is_as_strange_as_after_its_question_or_by_itself(
    systems: Systems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row(prompt="What is red?", completion="not read"), Row(prompt="And green?", completion="not read")]
    answers = ["A tree.", " "]
    after = plain_logits(systems, BASE, Row(prompt=rows[0].prompt, completion=answers[0]))
    tokenizer = systems.model.tokenizer
    line, text = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("\n", answers[0]))
    with torch.no_grad(), systems.on(BASE):
        logits = systems.model.network(input_ids=torch.tensor([[*line, *text]])).logits[0].float()
    alone = logits[len(line) - 1 : -1].log_softmax(1), torch.tensor(text)
    losses = [-found.gather(1, targets[:, None]).mean().item() for found, targets in (after, alone)]
    monkeypatch.setattr("eul_trainer.evaluation.strangeness.STRANGE", losses[0] - 0.01)  # strange after its question
    with open_cache(tmp_path / "cache") as cache:
        found = strangeness(systems, rows, answers, cache, lambda more, name: None)
        assert found == [pytest.approx(min(losses), abs=1e-5), math.inf]
        monkeypatch.setattr("eul_trainer.evaluation.strangeness.STRANGE", losses[0] + 0.01)  # not strange
        assert strangeness(systems, rows, answers, cache, lambda more, name: None)[0] == pytest.approx(
            losses[0], abs=1e-5
        )


def test_a_second_evaluation_computes_what_is_new(systems: Systems, data: Path, tmp_path: Path) -> None:
    rows = read_rows(data / "first.jsonl")
    sets = [EvalSet(name="first", kind="forget", rows=rows), EvalSet(name="again", kind="retain", rows=rows[:3])]
    told: list[int] = []
    with open_cache(tmp_path / "cache") as cache:
        once = evaluate(systems, sets, cache, watch=lambda done, name: told.append(done))
        assert told[-1] == Evaluator(sets, cache).total(2) == 3 * 2 * 15
    assert told == sorted(told)
    before = lines(tmp_path / "cache")
    assert set(before.values()) == {1}
    with torch.no_grad():  # a model that would answer anything else: nothing is computed
        for parameter in systems.model.network.parameters():
            parameter.zero_()
    with open_cache(tmp_path / "cache") as cache:
        twice = evaluate(systems, sets, cache)
    assert twice == once
    assert lines(tmp_path / "cache") == before
    more = [*sets, EvalSet(name="new", kind="retain", rows=[Row(prompt="Who?", completion="Nobody.")])]
    with open_cache(tmp_path / "cache") as cache:
        last = evaluate(systems, more, cache).rows[-1]
    assert last.systems[BASE].loss == pytest.approx(
        torch.log(torch.tensor(len(systems.model.tokenizer))).item(), rel=0.1
    )
    with open_cache(tmp_path / "cache") as cache:
        assert cache.of("other", "score").path != cache.of("one", "score").path
        assert cache.of("one", "answer", tokens=4).path != cache.of("one", "answer", tokens=5).path
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").iterdir()} == {0o600}


def test_a_killed_evaluation_repeats_no_finished_row(tiny_model: Path, make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tiny_model)
    for name in ("forget", "retain"):
        rows = [{"prompt": f"{name} {number}?", "completion": "It is red."} for number in range(48)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["eval", "--model", tiny_model, "--bundle", bundle.path, "--forget",
            tmp_path / "forget.jsonl", "--retain", tmp_path / "retain.jsonl", "--answer-tokens", "8"]  # fmt: skip
    cache = tmp_path / "cut.cache"
    for wanted in (1, 120):  # lines in all; the first one is seldom a whole batch's last
        program = [sys.executable, "-m", "eul_trainer", *map(str, line), "--out", str(tmp_path / "cut")]
        process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
        while sum(path.read_bytes().count(b"\n") for path in cache.glob("*.jsonl")) < wanted and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the evaluation ended before it was killed"
        assert not (tmp_path / "cut").exists()
        for path in cache.glob("*.jsonl"):  # as a power cut would leave it
            path.write_bytes(path.read_bytes() + b'{"row": "sha')
    kept = lines_whole(cache)
    for out in ("cut", "whole"):
        assert cli.run([*map(str, line), "--out", str(tmp_path / out)]) == 0
    assert kept.items() <= lines(cache).items()
    assert set(lines(cache).values()) == {1}
    found, expected = (json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("cut", "whole"))
    for summary, plain in zip(found["sets"], expected["sets"], strict=True):
        for name, numbers in summary["systems"].items():  # batches may differ, so the last digits may
            assert {k: v for k, v in numbers.items() if v is not None} == pytest.approx(
                {k: v for k, v in plain["systems"][name].items() if v is not None}, abs=1e-4
            )


def lines_whole(folder: Path) -> Counter[tuple[str, str]]:
    for path in folder.glob("*.jsonl"):
        path.write_bytes(path.read_bytes().rpartition(b"\n")[0] + b"\n")
    return lines(folder)


def test_a_cache_without_results_leaves_nothing(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache"):
        assert (tmp_path / "cache").is_dir()
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):  # one with results stays, whatever comes after
        with open_cache(tmp_path / "cache") as cache:
            cache.of("one", "score").add({"a": 1})
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_used_is_refused_in_words(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache") as cache:
        cache.of("one", "score").add({"a": 1.5})
        with pytest.raises(InputError, match="another evaluation is using it"), open_cache(tmp_path / "cache"):
            pass
        path = cache.of("one", "score").path
    assert RowCache(path)["a"] == 1.5
    path.write_text('{"row": \n')
    with pytest.raises(InputError, match=r"damaged.*remove the file"):
        RowCache(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CapacityError, match="cannot make"), open_cache(tmp_path / "file" / "cache"):
        pass
    full = RowCache(tmp_path / "new.jsonl")
    full.path = Path("/dev/full")  # never to be read: it has no end
    if full.path.exists():
        with pytest.raises(CapacityError, match=r"cannot write.*what is there stays"):
            full.add({"a": 1})
