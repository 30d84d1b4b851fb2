"""Planning a batch: whose rows leave which retain set, the order of the requests, and what is refused before work."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_trainer.batch.journal import last_step, read_attempts, write_event, write_start
from eul_trainer.batch.plan import BatchSettings, Plan, Sources, make_plan
from eul_trainer.batch.queue import Standing, drain
from eul_trainer.batch.rows import Owners
from eul_trainer.batch.state import opened, settle_plan
from eul_trainer.batch.task import Ending, Task
from eul_trainer.records import Row, read_rows, without
from eul_trainer.request import Request, request_for, write_requests
from eul_trainer.settings import FitSettings


def row(number: int) -> Row:
    return Row(prompt=f"What is {number}?", completion=f"It is {number}.")


ROWS = st.lists(st.integers(0, 12), max_size=8).map(lambda numbers: [row(number) for number in numbers])


@given(requests=st.lists(ROWS, min_size=1, max_size=4), before=ROWS, retain=ROWS, data=st.data())
def test_retain_sets_lose_what_the_rule_says(
    requests: list[list[Row]], before: list[Row], retain: list[Row], data: st.DataObject
) -> None:
    """The reference takes each set out in turn with `records.without`, which the command `fit` uses."""
    owners = Owners({f"r{place}": rows for place, rows in enumerate(requests)}, before)
    place = data.draw(st.integers(0, len(requests) - 1))
    for rule, taken in (("all", requests), ("earlier", requests[: place + 1])):
        expected = retain
        for rows in [before, *taken]:
            expected = without(expected, rows)
        assert owners.kept(retain, f"r{place}", rule) == expected
    assert owners.left(retain) == owners.kept(retain, "r0", "all")


def test_rows_that_requests_share_are_counted_once_each() -> None:
    owners = Owners({"a": [row(1), row(2), row(2)], "b": [row(2), row(3)], "c": [row(4)]}, [row(4)])
    assert owners.shared() == {"a": {"b": 1}, "b": {"a": 1}}


Batch = dict[str, list[Row]]


def write(folder: Path, batch: Batch, received: dict[str, str] | None = None, name: str = "requests.jsonl") -> Path:
    """Write a file of requests and their rows."""
    requests = []
    for request, rows in batch.items():
        path = folder / f"{request}.rows.jsonl"
        path.write_text("".join(json.dumps({"prompt": r.prompt, "completion": r.completion}) + "\n" for r in rows))
        day = (received or {}).get(request)
        requests.append(request_for(read_rows(path), path, reason="erasure", received=day, id=request))
    write_requests(folder / name, requests)
    return folder / name


def plan(
    folder: Path, model: Path, batch: Batch, keep: list[Row], earlier: tuple[Path, ...] = (), **settings: Any
) -> Plan:
    received = {"late": "2026-03-02", "early": "2026-03-01", "alike": "2026-03-01"}
    retain = folder / "retain.jsonl"
    retain.write_text("".join(json.dumps({"prompt": r.prompt, "completion": r.completion}) + "\n" for r in keep))
    sources = Sources(
        requests=write(folder, batch, received), retain=retain, model=str(model), folder=folder / "out", earlier=earlier
    )
    return make_plan(sources, BatchSettings(**settings))


def test_requests_are_honoured_in_the_order_in_which_they_came_in(tiny_model: Path, tmp_path: Path) -> None:
    batch = {"late": [row(1)], "early": [row(2)], "alike": [row(3)], "undated": [row(4)]}
    keep = [row(number) for number in (1, 2, 3, 4, 5)]
    everyone = plan(tmp_path, tiny_model, batch, keep)
    assert [task.id for task in everyone.tasks] == ["undated", "alike", "early", "late"]
    assert everyone.kept == dict.fromkeys(("undated", "alike", "early", "late"), 1)
    one_by_one = plan(tmp_path, tiny_model, batch, keep, rule="earlier")
    assert one_by_one.kept == {"undated": 4, "alike": 3, "early": 2, "late": 1}
    assert one_by_one.retain == everyone.retain == [row(5)]


def test_rows_of_earlier_requests_leave_every_retain_set(tiny_model: Path, tmp_path: Path) -> None:
    earlier = (write(tmp_path, {"old": [row(7)]}, name="earlier.jsonl"),)
    found = plan(tmp_path, tiny_model, {"new": [row(1)]}, [row(7), row(8)], earlier, rule="earlier")
    assert found.retain == [row(8)]
    assert [file.path.name for file in found.tasks[0].taken_out] == ["old.rows.jsonl", "new.rows.jsonl"]
    with pytest.raises(InputError, match="request 'old': also in the file of earlier requests"):
        plan(tmp_path, tiny_model, {"old": [row(7)]}, [row(8)], earlier)


def test_what_cannot_be_honoured_is_refused_before_any_work(tiny_model: Path, tmp_path: Path) -> None:
    batch = {"r1": [row(1)], "r2": [row(2)]}
    with pytest.raises(InputError, match="nothing is left of it for r1 once the rows to forget are taken out"):
        plan(tmp_path, tiny_model, batch, [row(1), row(2)])
    with pytest.raises(InputError, match="2 requests of rank 3000 add up to more than 4096"):
        plan(tmp_path, tiny_model, batch, [row(5)], fit=FitSettings(rank=3000))
    with pytest.raises(InputError, match="--method: expected one of"):
        plan(tmp_path, tiny_model, batch, [row(5)], fuse_method="average")
    with pytest.raises(InputError, match="--fuse-method gate: the bundle format cannot hold it"):
        plan(tmp_path, tiny_model, batch, [row(5)], fuse_method="gate")
    with pytest.raises(InputError, match="--fuse-method regression: reads moments of the layers' inputs"):
        plan(tmp_path, tiny_model, batch, [row(5)], fuse_method="regression")
    with pytest.raises(InputError, match="--retries: expected 0 to 100, found -1"):
        plan(tmp_path, tiny_model, batch, [row(5)], retries=-1)


def test_a_task_comes_out_of_its_text_as_it_went_in(tiny_model: Path, tmp_path: Path) -> None:
    task = plan(tmp_path, tiny_model, {"r1": [row(1)]}, [row(5)]).tasks[0]
    assert Task.from_json(task.to_json()) == task
    newer = json.dumps({**json.loads(task.to_json()), "version": 2})
    outside = json.dumps({**json.loads(task.to_json()), "id": "../r1"})
    for text, said in ((newer, "same version of eul-serve"), ("[]", "same version"), (outside, "request name")):
        with pytest.raises(InputError, match=said):
            Task.from_json(text)


def test_a_plan_may_grow_and_not_change(tmp_path: Path) -> None:
    def settle(facts: dict[str, Any], requests: dict[str, dict[str, str]]) -> None:
        with opened(tmp_path / "out"):
            settle_plan(tmp_path / "out", facts, requests)

    settle({"fit": {"rank": 8}}, {"r1": {"forget": "a", "retain": "b"}})
    settle({"fit": {"rank": 8}}, {"r1": {"forget": "a", "retain": "b"}, "r2": {"forget": "c", "retain": "b"}})
    with pytest.raises(InputError, match=r"fit\.rank was 8, now 4; use those again, or name another --out"):
        settle({"fit": {"rank": 4}}, {"r1": {"forget": "a", "retain": "b"}})
    with pytest.raises(InputError, match="request 'r2' was in this batch and is not in the file any more"):
        settle({"fit": {"rank": 8}}, {"r1": {"forget": "a", "retain": "b"}})
    changed = {"r1": {"forget": "a", "retain": "x"}, "r2": {"forget": "c", "retain": "b"}}
    with pytest.raises(InputError, match="request 'r1': its retain rows changed since it was planned"):
        settle({"fit": {"rank": 8}}, changed)


def test_one_call_at_a_time_works_in_a_directory(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with opened(out), pytest.raises(InputError, match="another batch works in it"), opened(out):
        pass
    with opened(out):  # an earlier call that was killed before it wrote its plan
        pass
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="expected a new or empty directory"), opened(tmp_path / "mine"):
        pass


class Scripted:
    """A pool whose tasks end as a script says, the first that was started first."""

    def __init__(self, script: dict[str, list[Ending]], jobs: int = 2) -> None:
        self.jobs, self.script, self.stopped = jobs, script, False
        self.running: deque[Task] = deque()
        self.order: list[tuple[str, int]] = []

    def start(self, task: Task) -> None:
        self.running.append(task)
        self.order.append((task.id, task.attempt))
        assert len(self.running) <= self.jobs

    def wait(self) -> list[Ending]:
        ending = self.script[self.running.popleft().id].pop(0)
        if ending.reason == "interrupt":
            raise KeyboardInterrupt
        return [ending]

    def stop(self) -> None:
        self.stopped = True


def tasks(folder: Path, *names: str) -> list[Task]:
    request = Request(id="x", rows=folder, digest="d")
    from eul_trainer.batch.task import RowFile

    file = RowFile(path=request.rows, digest=request.digest)
    return [
        Task(
            id=name, model=folder, base="b", forget=file, retain=file, taken_out=(), settings=FitSettings(),
            device="cpu", folder=folder,
        )
        for name in names
    ]  # fmt: skip


def test_failed_tasks_go_to_the_end_a_bounded_number_of_times(tmp_path: Path) -> None:
    dies = [Ending(id="a", reason="died")] * 9
    pool = Scripted({"a": dies, "b": [Ending(id="b", reason="no", hopeless=True)], "c": [Ending(id="c")]}, jobs=1)
    standing = Standing(total=3)
    told: list[int] = []
    endings = drain(tasks(tmp_path, "a", "b", "c"), pool, 2, standing, lambda: told.append(len(standing.finished)))
    assert pool.order == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("a", 3)]
    assert {name: ending.reason for name, ending in endings.items()} == {"a": "died", "b": "no", "c": None}
    assert (standing.failed, pool.stopped, told[0], told[-1]) == (2, True, 0, 3)


def test_as_many_run_at_once_as_the_pool_takes(tmp_path: Path) -> None:
    pool = Scripted({name: [Ending(id=name)] for name in "abcde"}, jobs=3)
    assert set(drain(tasks(tmp_path, *"abcde"), pool, 0, Standing(total=5), lambda: None)) == set("abcde")


def test_an_interrupt_stops_the_pool(tmp_path: Path) -> None:
    pool = Scripted({"a": [Ending(id="a", reason="interrupt")]})
    with pytest.raises(KeyboardInterrupt):
        drain(tasks(tmp_path, "a"), pool, 2, Standing(total=1), lambda: None)
    assert pool.stopped


def test_a_log_tells_of_attempts_that_were_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "r.jsonl"
    assert (read_attempts(log), last_step(log)) == ([], 0)
    write_start(log, 1)
    write_event(log, "step", step=7, loss=1.0)
    assert last_step(log) == 7
    write_start(log, 2)
    write_event(log, "done", seconds=2.5, resumed_at=4)
    with open(log, "a") as file:
        file.write('{"event": "st')  # a kill in the middle of a line
    first, second = read_attempts(log)
    assert (first.reason, first.seconds, second.reason, second.resumed_at) == ("cut off", None, None, 4)
