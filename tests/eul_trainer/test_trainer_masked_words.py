"""Masked-word rows: what is taken out, and that the row can be put together again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_trainer.forward.masked_words import masked_rows
from eul_trainer.records import Row


class Words:
    """A tokenizer as far as masking asks: its vocabulary."""

    def __init__(self, sentinels: int) -> None:
        self._vocabulary = {f"<extra_id_{number}>": number for number in range(sentinels)} | {"a": 1000}

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary


def restored(masked: Row) -> str:
    """Put the missing words back into their gaps."""
    parts = re.split(r"\s*<extra_id_(\d+)>\s*", f" {masked.completion} ")
    missing = dict(zip(parts[1::2], parts[2::2], strict=True))
    text = masked.prompt.removeprefix("Predict the masked word ")
    return re.sub(r"<extra_id_(\d+)>", lambda found: missing[found[1]].strip(), text)


def test_the_prefix_and_the_form_are_the_papers_and_t5s() -> None:
    (row,) = masked_rows(Words(100), [Row(prompt="one", completion="two", where="file:3")], 0)
    assert row.prompt == "Predict the masked word <extra_id_0>"
    assert row.completion == "<extra_id_0> one <extra_id_1>"
    assert row.where == "file:3"


def test_fifteen_of_a_hundred_words_are_taken_out() -> None:
    words = [f"w{number}" for number in range(100)]
    (row,) = masked_rows(Words(100), [Row(prompt=" ".join(words), completion="x")], 0)
    assert sum(word in row.completion.split() for word in words) == 15
    assert sum(word in row.prompt.split() for word in words) == 85


@given(st.integers(1, 300), st.integers(0, 5), st.integers(2, 100))
def test_neighbours_share_a_gap_and_nothing_is_lost(count: int, seed: int, sentinels: int) -> None:
    text = " ".join(f"w{number}" for number in range(count))
    (row,) = masked_rows(Words(sentinels), [Row(prompt=text, completion="x")], seed)
    assert restored(row) == text
    gaps = re.findall(r"<extra_id_(\d+)>", row.prompt)
    assert gaps == [str(number) for number in range(len(gaps))]
    assert row.completion.endswith(f"<extra_id_{len(gaps)}>")
    assert len(gaps) < sentinels
    assert not re.search(r"<extra_id_\d+> <extra_id_\d+>", row.prompt)


def test_a_seed_gives_the_same_words_wherever_the_row_stands() -> None:
    rows = [Row(prompt=" ".join(f"{name}{number}" for number in range(40)), completion="x") for name in "ab"]
    first = masked_rows(Words(100), rows, 1)
    assert masked_rows(Words(100), rows[::-1], 1) == first[::-1]
    assert masked_rows(Words(100), rows, 2) != first


@pytest.mark.parametrize("sentinels", [0, 1])
def test_without_sentinels_the_way_round_is_named(sentinels: int) -> None:
    with pytest.raises(InputError, match=r"expected a tokenizer with sentinels .* --weight gamma=0"):
        masked_rows(Words(sentinels), [Row(prompt="one", completion="two")], 0)
