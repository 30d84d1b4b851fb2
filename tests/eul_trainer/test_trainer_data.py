"""The folder that every builder writes: what is in it, what is never in it, and that it comes whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import CapacityError, InputError
from eul_trainer.data.dataset import Dataset, Receipt, write_dataset
from eul_trainer.data.split import covers, dealt, draw, limited, rows_for, smallest_cover
from eul_trainer.records import Row, read_rows
from eul_trainer.request import read_requests


def rows(*prompts: str) -> list[Row]:
    return [Row(prompt=prompt, completion="Yes.", extra={"number": number}) for number, prompt in enumerate(prompts)]


def dataset(**sets: list[Row]) -> Dataset:
    given = {"forget": rows("a", "b"), "retain": rows("c", "d"), "validation": rows("e"), "test": rows("f")}
    return Dataset(builder="made", sets={**given, **sets}, settings={"seed": 0})


def test_the_folder_has_its_files_their_digests_and_the_request(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", dataset(), Receipt(reason="erasure", received="2026-11-24", id="r-1"))
    names = ["digests.json", "forget.jsonl", "request.jsonl", "retain.jsonl", "test.jsonl", "validation.jsonl"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    record = json.loads((tmp_path / "out" / "digests.json").read_text())
    assert sorted(record["files"]) == names[1:]
    for name, entry in record["files"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert entry == {"rows": data.count(b"\n"), "sha256": "sha256:" + hashlib.sha256(data).hexdigest()}
    first = json.loads((tmp_path / "out" / "forget.jsonl").read_text().splitlines()[0])
    assert first == {"prompt": "a", "completion": "Yes.", "group": "all", "number": 0}
    (request,) = read_requests(tmp_path / "out" / "request.jsonl")
    assert (request.id, request.reason, request.received) == ("r-1", "erasure", "2026-11-24")
    assert request.read() == rows("a", "b")
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "out").iterdir())


def test_rows_to_forget_are_in_no_other_file_whatever_their_case(tmp_path: Path) -> None:
    kept = dataset(retain=rows("A ", "c"), test=rows("f", "\uff22"), twin=rows("b", "c"), teach=rows("a", "b", "c"))
    record = write_dataset(tmp_path / "out", kept, Receipt())
    assert record["notes"]["removed"] == {"retain": 1, "test": 1, "twin": 1}
    assert [row.prompt for row in read_rows(tmp_path / "out" / "retain.jsonl")] == ["c"]
    assert [row.prompt for row in read_rows(tmp_path / "out" / "teach.jsonl")] == ["a", "b", "c"]


def test_the_same_question_with_another_answer_is_counted_and_kept(tmp_path: Path) -> None:
    again = [Row(prompt="A", completion="No.")]
    record = write_dataset(tmp_path / "out", dataset(retain=again), Receipt())
    assert record["notes"]["same_prompts"] == 1
    assert record["files"]["retain.jsonl"]["rows"] == 1


def test_several_requests_have_a_file_each_and_one_record(tmp_path: Path) -> None:
    sets = dataset().sets
    several = {"forget-00": rows("a"), "forget-01": rows("b")}
    both = Dataset(builder="made", sets=sets, settings={}, requests=several)
    write_dataset(tmp_path / "out", both, Receipt(id="r"))
    found = read_requests(tmp_path / "out" / "requests.jsonl")
    assert [(request.id, request.rows.name) for request in found] == [
        ("r-00", "forget-00.jsonl"),
        ("r-01", "forget-01.jsonl"),
    ]
    assert [row for request in found for row in request.read()] == rows("a", "b")
    assert [request.id for request in read_requests(tmp_path / "out" / "request.jsonl")] == ["r"]


@pytest.mark.parametrize("name", ["forget", "retain", "validation", "test"])
def test_an_empty_set_is_refused_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}\.jsonl: expected at least one row, found none"):
        write_dataset(tmp_path / "out", dataset(**{name: []}), Receipt())
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_is_all_to_be_forgotten_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"retain\.jsonl: expected at least one row"):
        write_dataset(tmp_path / "out", dataset(retain=rows("a", "B")), Receipt())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "Ann Lee"}, "request name 'Ann Lee'"),
        ({"received": "yesterday"}, "expected a day as YYYY-MM-DD"),
        ({"reason": ""}, "expected 1 to 200"),
    ],
)
def test_a_bad_receipt_is_refused_and_nothing_is_left(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        write_dataset(tmp_path / "out", dataset(), Receipt(**change))
    assert list(tmp_path.iterdir()) == []


def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path) -> None:
    broken = [Row(prompt="\ud800", completion="Yes.", where="mine.jsonl:7")]
    with pytest.raises(InputError, match=r"mine\.jsonl:7: half of a surrogate pair"):
        write_dataset(tmp_path / "out", dataset(test=broken), Receipt())


def test_a_folder_in_use_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="expected a new or empty directory"):
        write_dataset(tmp_path, dataset(), Receipt())


def test_a_disk_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    def failing() -> Any:
        yield Row(prompt="c", completion="Yes.")
        raise OSError(28, "No space left on device")

    full = Dataset(builder="made", sets={**dataset().sets, "retain": failing()}, settings={})
    with pytest.raises(CapacityError, match="No space left on device"):
        write_dataset(tmp_path / "out", full, Receipt())
    assert list(tmp_path.iterdir()) == []


@given(
    st.lists(st.integers(), min_size=1, max_size=30),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_dealt_items_are_each_in_one_set_and_in_order(items: list[int], test: int, validation: int, seed: int) -> None:
    places = list(enumerate(items))
    if test + validation > len(items):
        with pytest.raises(InputError, match="expected at least"):
            dealt(places, test, validation, seed, "items")
        return
    found = dealt(places, test, validation, seed, "items")
    assert sorted(item for some in found.values() for item in some) == places
    assert all(some == sorted(some) for some in found.values())
    assert (len(found["test"]), len(found["validation"])) == (test, validation)
    assert dealt(places, test, validation, seed, "items") == found


def test_the_default_deal_is_a_fifth_and_a_tenth() -> None:
    sizes = {
        count: {name: len(some) for name, some in dealt(range(count), None, None, 0, "x").items()}
        for count in (9, 60, 400)
    }
    assert sizes[9] == {"retain": 6, "test": 2, "validation": 1}
    assert sizes[60] == {"retain": 42, "test": 12, "validation": 6}
    assert sizes[400] == {"retain": 370, "test": 20, "validation": 10}


def test_another_seed_draws_others() -> None:
    drawn = {tuple(draw(range(100), {"a": 10}, seed, "x")["a"]) for seed in range(20)}
    assert len(drawn) == 20


groups = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 9), min_size=1, max_size=8)


@given(groups, st.integers(1, 40), st.integers(0, 3))
def test_no_fewer_groups_would_do(sizes: dict[str, int], needed: int, seed: int) -> None:
    numbered, start = {}, 0
    for name, size in sizes.items():
        numbered[name] = list(range(start, start + size))
        start += size
    chosen = smallest_cover(numbered, needed, seed)
    assert len(set(chosen)) == len(chosen)
    reached = sum(sizes[name] for name in chosen)
    assert reached >= min(needed, start)
    largest = sorted(sizes.values(), reverse=True)
    assert sum(largest[: len(chosen) - 1]) < needed
    # The last one is the smallest of those that are enough.
    before = sum(sizes[name] for name in chosen[:-1])
    others = [size for name, size in sizes.items() if name not in chosen and before + size >= needed]
    assert reached < needed or all(size >= sizes[chosen[-1]] for size in others)


def test_several_requests_have_no_group_in_common() -> None:
    sizes = {name: list(range(10 * number, 10 * number + 5)) for number, name in enumerate("abcdef")}
    found = covers(sizes, 8, 3, 0, "films")
    assert sorted(name for some in found for name in some) == sorted(sizes)
    with pytest.raises(InputError, match="films: expected 8 rows for each of 4 requests, found too few for request 4"):
        covers(sizes, 8, 4, 0, "films")
    with pytest.raises(InputError, match="requests 0: expected at least 1"):
        covers(sizes, 8, 0, 0, "films")


@pytest.mark.parametrize(
    ("share", "rows", "needed"),
    [(0.005, 20_000, 100), (0.1, 20_000, 2000), (0.1, 10, 1), (0.01, 14_731, 148), (0.1, 3, 1)],
)
def test_a_share_is_rounded_up(share: float, rows: int, needed: int) -> None:
    assert rows_for(share, rows) == needed


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="expected more than 0 and less than 1"):
        rows_for(share, 100)


def test_a_limit_draws_and_keeps_the_order() -> None:
    some = limited(range(100), 10, 0, "x")
    assert len(some) == 10
    assert some == sorted(set(some))
    assert limited(range(5), 10, 0, "x") == limited(range(5), None, 0, "x") == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="limit 0: expected at least 1"):
        limited(range(5), 0, 0, "x")
