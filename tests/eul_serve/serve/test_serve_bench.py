"""The service's benchmarks: arrivals, numbers and verdicts by hand, and each script run on little, without a model."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "service"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "trainer"))

import count_bypass
from loading.arrivals import arrivals, zipf
from loading.driving import Heard, drive
from loading.outcome import Outcome, figures, percentile
from loading.plan import Plan
from loading.samples import Sample, flatness, metric
from loading.timeline import Move, Reference, Timeline, swap_seconds

from eul_serve.errors import InputError

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "service"
RESULTS = FOLDER.parents[2] / "docs" / "benchmarks" / "service"
SIGMAS = 5
"""How far a seeded draw may be from its mean: one in two million is further."""


def test_arrivals_are_a_poisson_process_and_the_same_for_the_same_seed() -> None:
    rate, count, tenants = 50.0, 20_000, ["a", "b", "c"]
    found = list(itertools.islice(arrivals(tenants, rate, 1), count))
    assert found == list(itertools.islice(arrivals(tenants, rate, 1), count))
    assert found != list(itertools.islice(arrivals(tenants, rate, 2), count))
    # The sum of exponential times has mean n / rate and deviation sqrt(n) / rate.
    assert abs(found[-1].at - count / rate) < SIGMAS * math.sqrt(count) / rate
    asked = Counter(one.tenant for one in found)
    for tenant, share in zip(tenants, zipf(3), strict=True):
        assert abs(asked[tenant] - count * share) < SIGMAS * math.sqrt(count * share * (1 - share))


def test_shares_by_zipf_s_law() -> None:
    assert zipf(3) == pytest.approx([6 / 11, 3 / 11, 2 / 11])  # 1, 1/2 and 1/3
    assert zipf(4, 0.0) == [0.25] * 4
    assert {one.at for one in itertools.islice(arrivals(["a"], None, 0), 5)} == {0.0}


def plan(count: int) -> Plan:
    return Plan(address="", callers={"a": "x", "b": "y"}, rate=1000.0, count=count, prompt=4, answer=1, never=(7,))


async def test_the_load_waits_for_no_answer() -> None:
    """Nobody is answered before all have asked: a closed loop would stand still."""
    asked: list[str] = []
    enough = asyncio.Event()

    async def send(tenant: str, prompt: tuple[int, ...], answer: int) -> AsyncGenerator[Heard, None]:
        asked.append(tenant)
        if len(asked) == 20:
            enough.set()
        await enough.wait()
        yield Heard(fresh=True, made=1, revision="r")

    found: list[Outcome] = []
    await asyncio.wait_for(drive(plan(20), send, found.append, asyncio.Event()), 60)
    assert sorted(one.number for one in found) == list(range(20))
    assert {(one.error, one.tokens, one.revision) for one in found} == {("", 1, "r")}


async def test_failures_are_outcomes() -> None:
    async def send(tenant: str, prompt: tuple[int, ...], answer: int) -> AsyncGenerator[Heard, None]:
        if tenant == "a":
            raise InputError("no")
        yield Heard(fresh=False)

    found: list[Outcome] = []
    await drive(plan(30), send, found.append, asyncio.Event())
    assert {one.tenant: one.error for one in found} == {"a": "InputError: no", "b": "an answer without a token"}
    assert figures(found)["failed"] == 30


def test_a_plan_and_an_outcome_come_through_json_as_they_were() -> None:
    assert Plan.from_json(plan(3).to_json()) == plan(3)
    assert Outcome.from_json(answer("r0", 1.0).to_json()) == answer("r0", 1.0)
    assert plan(3).prompt_of(1) == plan(3).prompt_of(1) != plan(3).prompt_of(2)


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 99) == 3.0
    assert math.isnan(percentile([], 50))


def answer(
    revision: str, sent: float, *, late: float = 0.0, tokens: tuple[int, ...] = (1, 2), text: str = ""
) -> Outcome:
    """An answer of two tokens, begun half a second after it was sent; by default that of its revision."""
    times = tuple(sent + 0.5 + 0.1 * number for number in range(len(tokens)))
    return Outcome(
        number=0, tenant="a", asked=2, intended=sent - late, sent=sent, admitted=sent + 0.5, times=times,
        tokens=len(tokens), revision=revision, token_ids=tokens, text=text or revision, error="",
    )  # fmt: skip


def test_latencies_count_from_when_a_request_was_to_be_sent() -> None:
    found = figures([answer("r0", 10.0), answer("r0", 12.0, late=1.0)])
    assert found["first_token_ms_p50"] == pytest.approx(500)
    assert found["first_token_ms_p99"] == pytest.approx(1500)
    assert found["between_tokens_ms_p50"] == pytest.approx(100)
    assert found["tokens_per_second"] == pytest.approx(4 / 2.6)  # from 10.0 to 12.6


MOVES = [
    Move(revision="r0", began=-math.inf, done=-math.inf),
    Move(revision="r1", began=10.0, done=10.1),
    Move(revision="r2", began=20.0, done=20.1),
]
REFERENCES = {move.revision: Reference(token_ids=(1, 2), text=move.revision) for move in MOVES}


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (answer("r0", 5.0), ""),
        (answer("r0", 10.2), ""),  # the server has not taken the move up yet
        (answer("r1", 9.8), ""),  # sent before the move, admitted after it
        (answer("r1", 9.0), "early"),
        (answer("r0", 13.0), "back"),  # after somebody was answered by r1
        (answer("r9", 13.0), "unknown"),
        (answer("r0 r1", 13.0), "unknown"),
        (answer("r1", 13.0, tokens=(1, 3)), "content"),
        (answer("r1", 13.0, text="r0"), "content"),
        (answer("r1", 13.0, tokens=(1,)), "content"),
    ],
)
def test_a_wrong_answer_is_known_by_its_revision_or_its_content(outcome: Outcome, fault: str) -> None:
    others = [answer("r0", 8.0), answer("r1", 12.0)]
    assert Timeline(MOVES, REFERENCES, [*others, outcome]).fault(outcome) == fault


def test_an_answer_of_the_revision_before_is_late_some_time_after_a_move() -> None:
    outcomes = [answer("r0", 10.5), answer("r0", 12.0), answer("r2", 30.0)]
    timeline = Timeline(MOVES, REFERENCES, outcomes)
    assert [timeline.is_late(one, 1.0) for one in outcomes] == [False, True, False]
    assert swap_seconds(MOVES[1:], [answer("r1", 12.0), answer("r1", 11.0)]) == pytest.approx([1.5])


def test_a_metric_is_summed_over_its_labels() -> None:
    text = '# TYPE a gauge\na{x="1"} 2.0\na{x="2"} 3.0\nab 7.0\nc 4.0\n'
    assert [metric(text, name) for name in ("a", 'a{x="2"}', "c", "none")] == [5.0, 3.0, 4.0, 0.0]


def test_memory_that_grows_is_not_flat() -> None:
    def samples(sizes: list[float]) -> list[Sample]:
        return [Sample(minute=at, memory_mib=size, descriptors=9, in_flight=1.0) for at, size in enumerate(sizes)]

    assert flatness(samples([80.0, 100.0, 101.0, 99.0, 101.0, 100.0]))["flat"]  # it rose before the second half
    grown = flatness(samples([100.0, 100.0, 100.0, 100.0, 102.0, 104.0]))
    assert not grown["flat"]
    assert grown["second_half_mib_per_hour"] == pytest.approx(120)


def test_attempts_are_counted_from_the_suite_s_report() -> None:
    cases = [
        '<testcase name="test_nothing_gets_through[a]"/>',
        '<testcase name="test_nothing_gets_through[b[c]]"><failure/></testcase>',
        '<testcase name="test_without_the_defence_it_would[a]"/>',
    ]
    found = count_bypass.count(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    assert found == {
        (count_bypass.ATTEMPT, True): 1,
        (count_bypass.ATTEMPT, False): 1,
        (count_bypass.CONTROL, True): 1,
    }


def run(name: str, out: Path, *words: object) -> dict[str, Any]:
    """Run a benchmark and return the record that it wrote."""
    line = [sys.executable, str(FOLDER / f"bench_{name}.py"), "--out", str(out), *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    record: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    assert json.loads(done.stdout) == record
    assert record["command"].startswith(f"python tests/benchmarks/service/bench_{name}.py --out ")
    assert record["machine"]["cores"] >= 1
    assert str(out) not in json.dumps(record)
    return record


def test_the_front_end_against_grpc_alone(tmp_path: Path) -> None:
    few = ("--streams", 3, "--repeats", 1, "--seconds", 0.3, "--workers", 2, "--settle-seconds", 0.1)
    record = run("front_end", tmp_path, *few)
    found = record["streams"]["3"]
    assert (found["failed"], found["left_open"]) == (0, 0)
    for kind in ("ours", "bare"):
        assert found[kind]["requests_per_second"] > 0
        assert found[kind]["tokens_per_second"] > 0
    assert found["requests_vs_bare"] > 0


def test_swaps_under_load(tmp_path: Path) -> None:
    few = ("--fake", "--swaps", 4, "--pairs", 2, "--rate", 20, "--answer", 8, "--prompt", 4)
    record = run("swaps", tmp_path, *few, "--warm-seconds", 0.2, "--poll-seconds", 0.05)
    assert [record[name] for name in ("count", "failed", "wrong_revision", "unseen")] == [4, 0, 0, 0]
    assert record["references"] == {"learned": 8, "left_out": 0, "different": 8}  # three at first, four and one spare
    assert record["answers"] > 0
    assert record["probes"] > 0
    assert record["seconds_p50"] > 0
    assert [len(each) for each in record["itl_p99_ms"].values()] == [2, 2]
    assert record["stages_ms"].keys() == {"pull", "verify", "load", "probe", "activate", "drain"}


def test_a_soak(tmp_path: Path) -> None:
    few = ("--fake", "--minutes", 0.07, "--rate", 40, "--answer", 6)
    record = run("soak", tmp_path, *few, "--swap-seconds", 0.5, "--poll-seconds", 0.1)
    assert record["failed"] == 0, record["errors"]
    assert set(record["leaked"].values()) == {0}, record["idle"]
    assert record["swaps"] > 0
    assert all(kind["asked"] for kind in record["kinds"]["soak"].values())
    assert len(record["samples"]["rows"]) >= 4


def test_the_summary_has_null_for_what_was_not_measured(tmp_path: Path) -> None:
    (tmp_path / "bypass.json").write_text(
        json.dumps({"attempts": 90, "through": 0, "controls": 90, "machine": {"cores": 2}, "command": "c"})
    )
    summarise(tmp_path)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["bypass"] == {"attempts": 90, "through": 0}
    names = ("grpc_vs_in_process", "grpc_vs_openai_http", "swaps", "front_end", "soak")
    assert {found[name] for name in names} == {None}
    assert found["machine"] == {"bypass": {"cores": 2}}


def test_the_committed_summary_is_that_of_the_committed_files(tmp_path: Path) -> None:
    for path in RESULTS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    summarise(tmp_path)
    assert (tmp_path / "summary.json").read_text() == (RESULTS / "summary.json").read_text()


def summarise(folder: Path) -> None:
    subprocess.run([sys.executable, str(FOLDER / "summary.py"), "--results", str(folder)], check=True, timeout=60)
