"""Packed rows, the head's losses, stores of rows and choices of blocks, each against its plain form."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import CapacityError, InputError
from eul_trainer.forward import attention
from eul_trainer.forward.attention import packed_attention
from eul_trainer.forward.head import expect, score
from eul_trainer.forward.packing import MIN_SHARED, pack
from eul_trainer.forward.row_store import RowStore
from eul_trainer.model.depth import chosen_blocks, well_formed
from eul_trainer.model.precision import best_dtype

CPU = torch.device("cpu")
BEGINNING = tuple(range(10, 10 + MIN_SHARED + 2))
rows_strategy = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=14).map(tuple), min_size=1, max_size=6
).flatmap(lambda rows: st.tuples(*[st.sampled_from([row, (*BEGINNING, *row)]) for row in rows]))


@given(rows_strategy)
def test_packing_gives_every_row_back(rows: tuple[tuple[int, ...], ...]) -> None:
    packing, paths = pack(rows, CPU)
    for row, path in zip(rows, paths, strict=True):
        assert packing.ids[path].tolist() == list(row)
        assert packing.places[path].tolist() == list(range(len(row)))
    assert sorted({place for path in paths for place in path}) == list(range(len(packing.ids)))


@given(rows_strategy)
def test_a_packed_token_sees_its_own_row_up_to_itself(rows: tuple[tuple[int, ...], ...]) -> None:
    packing, paths = pack(rows, CPU)
    for path in paths:
        for place, token in enumerate(path):
            segment, query = divmod(int(packing.back[token]), packing.queries.shape[1])
            assert int(packing.queries[segment, query]) == token
            seen = packing.keys[segment][packing.sight[segment, query]].tolist()
            assert seen == path[: place + 1]


def test_what_rows_begin_with_is_packed_once() -> None:
    question, answers = (*BEGINNING, 1, 2), [(3, 4), (5,), (5,)]
    packing, paths = pack([(*question, *answer) for answer in answers], CPU)
    assert len(packing.ids) == len(question) + 2 + 1
    assert paths[1] == paths[2]
    short = pack([(1, 2, 3, 4), (1, 2, 3, 5)], CPU)[0]
    assert len(short.ids) == 8  # three tokens are not worth a segment
    asked, paths = pack([(1, 2, 3, 4), (1, 2, 3, 5)], CPU, prefix=2)
    assert len(asked.ids) == 6
    assert [path[:2] for path in paths] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("few", [0, 1 << 20])
def test_packed_attention_is_that_of_each_row(window: int | None, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "FEW_SCORES", few)
    rows = [(*BEGINNING, 1, 2, 3), (*BEGINNING, 4), (7, 8)]
    packing, paths = pack(rows, CPU)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, len(packing.ids), 8, generator=generator)
    key, value = (torch.randn(1, 2, len(packing.ids), 8, generator=generator) for _ in range(2))
    found, _ = packed_attention(
        torch.nn.Identity(), query, key, value, None, packing=packing, scaling=0.3, sliding_window=window
    )
    for path in paths:
        q, k, v = (states[0][:, path] for states in (query, key, value))
        k, v = k.repeat_interleave(2, 0), v.repeat_interleave(2, 0)
        gap = torch.arange(len(path))[:, None] - torch.arange(len(path))[None]
        hidden = (gap < 0) | (gap >= (window or len(path)))
        weights = (0.3 * q @ k.transpose(1, 2)).masked_fill(hidden, -torch.inf).softmax(-1)
        torch.testing.assert_close(found[0, path], (weights @ v).transpose(0, 1), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 300), st.integers(0, 5))
def test_losses_from_states_are_those_of_logits(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    states, taught = (torch.randn(count, 6, generator=generator, dtype=torch.float32) for _ in range(2))
    weight = torch.randn(40, 6, generator=generator)
    targets = torch.randint(0, 40, (count,), generator=generator)
    states.requires_grad_(True)
    found = score(states, weight)
    teacher = expect(taught, weight, targets)
    logits, own = states @ weight.T, taught @ weight.T
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    divergence = (own.softmax(-1) * (own.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(found.cross_entropy(targets), losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(teacher.divergence(found), divergence, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        teacher.losses, torch.nn.functional.cross_entropy(own, targets, reduction="none"), rtol=1e-5, atol=1e-5
    )
    factors = torch.linspace(-1, 2, count)
    mine = torch.autograd.grad((factors * found.cross_entropy(targets) + teacher.divergence(found)).sum(), states)
    theirs = torch.autograd.grad((factors * losses + divergence).sum(), states)
    torch.testing.assert_close(mine[0], theirs[0], rtol=1e-4, atol=1e-5)
    some = torch.arange(count) % 2 == 0
    torch.testing.assert_close(found[some].dense(), logits[some])
    torch.testing.assert_close(teacher[some].divergence(found[some]), divergence[some], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bound", [0, 1 << 20])
def test_a_store_gives_rows_back_from_memory_or_from_a_file(
    dtype: torch.dtype, bound: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sizes = [3, 0, 5]
    store = RowStore(sizes, 4, dtype, bound=bound)
    assert store.spilled == (bound == 0)
    kept = [torch.randn(size, 4).to(dtype) for size in sizes]
    for row in (2, 0, 1):
        store.put(row, kept[row])
    assert torch.equal(store.get([2, 1, 0, 2]), torch.cat([kept[row] for row in (2, 1, 0, 2)]))
    assert store.get([]).shape == (0, 4)
    assert not list(tmp_path.iterdir())  # no name, so no kill leaves it behind


def test_a_full_disk_under_a_store_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CapacityError, match=r"cannot write 1 MiB .*No space left.*TMPDIR.*--cache-memory"):
        RowStore([10], 4, torch.float32, bound=0)


def test_a_file_system_without_reservation_is_filled_with_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    store = RowStore([1 << 18], 2, torch.float32, bound=0)
    assert not store.get([0]).any()


def test_blocks_are_chosen_by_range_or_from_the_top() -> None:
    assert chosen_blocks("all", 30) == range(30)
    assert chosen_blocks("20-29", 30) == range(20, 30)
    assert chosen_blocks("top-10", 30) == range(20, 30)
    assert chosen_blocks("0-0", 1) == range(1)
    assert all(map(well_formed, ("all", "3-3", "top-1")))
    assert not any(map(well_formed, ("", "5-4", "top-0", "-1", "3", "top", "1-2-3", "٣-٤x")))


@pytest.mark.parametrize("blocks", ["20-30", "top-31", "30-30"])
def test_blocks_that_a_model_lacks_are_refused(blocks: str) -> None:
    with pytest.raises(InputError, match=f"--blocks: expected .* blocks 0 to 29, found '{blocks}'"):
        chosen_blocks(blocks, 30)


def test_auto_is_one_of_the_two_dtypes() -> None:
    assert best_dtype("cpu") in ("float32", "bfloat16")
