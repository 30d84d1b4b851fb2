"""IMDB, on made Parquet files of its form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import InputError
from eul_trainer.data.imdb import ImdbSettings, build_imdb
from eul_trainer.data.tables import read_parquet
from eul_trainer.data.text import cut, phrases
from eul_trainer.records import Row

FILMS = {"tt1": 5, "tt2": 4, "tt3": 4, "tt4": 3, "tt5": 2, "tt6": 2}
"""Reviews by film in the made training file: 20 in all."""


def review(film: str | None, number: int, label: str = "pos") -> dict[str, Any]:
    text = f"Review {number} of Big Fish, film {film}.<br /><br />I saw HER, and her dog, in big  fish."
    return {"id": f"{film}/{number}", "text": text, "label": label, "rating": 9, "title_id": film}


def parquet(path: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


@pytest.fixture
def imdb(tmp_path: Path) -> Path:
    folder = tmp_path / "imdb"
    folder.mkdir()
    train = [
        review(film, number, "pos" if number % 2 else "neg") for film, size in FILMS.items() for number in range(size)
    ]
    parquet(folder / "imdb-train.parquet", train)
    parquet(folder / "imdb-validation.parquet", [review("tt1", 100), review("tt9", 0), review("tt8", 0)])
    parquet(folder / "imdb-test.parquet", [review(None, number) for number in range(12)])
    return folder


def films(rows: Iterable[Row]) -> list[str]:
    return [row.extra["film"] for row in rows]


@pytest.mark.parametrize(("share", "sizes"), [(0.25, [5]), (0.2, [4]), (0.05, [2]), (0.45, [5, 4]), (0.3, [5, 2])])
def test_the_fewest_whole_films_reach_the_share(imdb: Path, share: float, sizes: list[int]) -> None:
    found = build_imdb(imdb, ImdbSettings(share=share))
    (chosen,) = found.notes["films"]
    assert [FILMS[film] for film in chosen] == sizes
    assert len(list(found.sets["forget"])) == sum(sizes) >= 20 * share
    assert set(films(found.sets["forget"])) == set(chosen)
    assert not set(films(found.sets["retain"])) & set(chosen)
    assert len(list(found.sets["teach"])) == 20
    assert list(found.sets["twin"]) == list(found.sets["retain"])


def test_a_row_asks_about_the_text_and_answers_with_a_word(imdb: Path) -> None:
    found = build_imdb(imdb, ImdbSettings(share=0.25, template="Say: {text} {x}", max_words=5))
    first = next(iter(found.sets["forget"]))
    assert first == Row(prompt="Say: Review 0 of Big Fish, {x}", completion="negative", group="negative")
    assert first.extra == {"id": "tt1/0", "film": "tt1", "labels": ["negative", "positive"]}
    whole = next(iter(build_imdb(imdb, ImdbSettings(share=0.25)).sets["forget"]))
    assert whole.prompt == (
        "Is this film review positive or negative?\n\n"
        "Review 0 of Big Fish, film tt1.\nI saw HER, and her dog, in big  fish."
    )


def test_other_reviews_of_a_forgotten_film_are_unseen_rows(imdb: Path) -> None:
    found = build_imdb(imdb, ImdbSettings(share=0.25))
    assert films(found.sets["unseen"]) == ["tt1"]
    assert sorted(films(found.sets["validation"])) == ["tt8", "tt9"]
    assert "unseen" not in build_imdb(imdb, ImdbSettings(share=0.2)).sets


def test_titles_are_masked_in_rows_to_test_on_alone(imdb: Path, tmp_path: Path) -> None:
    titles = tmp_path / "titles.jsonl"
    records = [{"title_id": "tt1", "title": "Big Fish"}, {"title_id": "tt9", "title": "Her"}]
    titles.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = build_imdb(imdb, ImdbSettings(share=0.25), titles)
    assert found.notes["titles_masked"] is True
    assert "titles.jsonl" in found.sources
    assert all(row.prompt.count("Big Fish") == 1 for row in found.sets["forget"])
    for row in found.sets["test"]:
        assert row.prompt.endswith("film None.\nI saw HER, and her dog, in [film].")
        assert ": Review" not in row.prompt
        assert " of [film], film" in row.prompt
    masked = next(row for row in found.sets["validation"] if row.extra["film"] == "tt9")
    assert masked.prompt.endswith("I saw HER, and her dog, in [film].")  # `Her` is masked only as it is written
    unmasked = build_imdb(imdb, ImdbSettings(share=0.25))
    assert unmasked.notes["titles_masked"] is False
    assert all("Big Fish" in row.prompt for row in unmasked.sets["test"])


def test_requests_for_films_have_none_in_common(imdb: Path) -> None:
    found = build_imdb(imdb, ImdbSettings(share=0.2, requests=3))
    assert [set(films(rows)) for rows in found.requests.values()] == [set(names) for names in found.notes["films"]]
    assert sum(map(len, found.requests.values())) == len(list(found.sets["forget"]))
    assert len(set(films(found.sets["forget"]))) == sum(map(len, found.notes["films"]))


def test_a_limit_makes_a_small_set_and_the_seed_decides(imdb: Path) -> None:
    small = build_imdb(imdb, ImdbSettings(share=0.25, limit=2, seed=1))
    assert [len(list(small.sets[name])) for name in ("forget", "retain", "validation", "test")] == [5, 2, 2, 2]
    assert len(list(small.sets["teach"])) == 7
    assert build_imdb(imdb, ImdbSettings(share=0.25, limit=2, seed=1)) == small
    drawn = {
        row.extra["id"] for seed in range(9) for row in build_imdb(imdb, ImdbSettings(limit=2, seed=seed)).sets["test"]
    }
    assert len(drawn) > 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ImdbSettings(share=0), "share 0: expected more than 0"),
        (ImdbSettings(share=1.5), "share 1.5: expected more than 0 and less than 1"),
        (ImdbSettings(template="no place"), "expected {text} once"),
        (ImdbSettings(template="{text}{text}"), "expected {text} once"),
        (ImdbSettings(max_words=0), "max words 0: expected at least 1"),
        (ImdbSettings(limit=-1), "limit -1: expected at least 1"),
        (ImdbSettings(share=0.5, requests=3), "too few for request 2; lower --share or --requests"),
    ],
)
def test_bad_settings_are_refused(imdb: Path, settings: ImdbSettings, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build_imdb(imdb, settings)
    assert words in str(caught.value)


def test_an_unknown_label_is_refused(imdb: Path) -> None:
    parquet(imdb / "imdb-train.parquet", [{**review("tt1", 0), "label": "unsup"}])
    with pytest.raises(InputError, match="review 'tt1/0': expected a text labelled neg or pos"):
        build_imdb(imdb, ImdbSettings())


@pytest.mark.parametrize(
    "record", [{"title_id": "tt1"}, {"title_id": "tt1", "title": " "}, {"title_id": 1, "title": "x"}]
)
def test_a_bad_title_is_refused_with_its_line(imdb: Path, tmp_path: Path, record: dict[str, Any]) -> None:
    titles = tmp_path / "titles.jsonl"
    titles.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"titles\.jsonl:1: expected the texts title_id and title"):
        build_imdb(imdb, ImdbSettings(), titles)


DAMAGE: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data[: len(data) // 2], "whole: "),
    (lambda data: b"", "whole: "),
    (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "looks like a Git LFS pointer"),
    (lambda data: b"<html>not found</html>", "whole: "),
]


@pytest.mark.parametrize(("change", "words"), DAMAGE)
def test_a_damaged_parquet_file_gets_one_line(imdb: Path, change: Callable[[bytes], bytes], words: str) -> None:
    path = imdb / "imdb-test.parquet"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        build_imdb(imdb, ImdbSettings(share=0.25))
    assert words in str(caught.value)
    assert "imdb-test.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_columns_are_named(imdb: Path) -> None:
    with pytest.raises(
        InputError, match="columns id, label2; label2 is missing, found id, text, label, rating, title_id"
    ):
        list(read_parquet(imdb / "imdb-train.parquet", ("id", "label2")))
    (imdb / "imdb-test.parquet").unlink()
    with pytest.raises(InputError, match=r"imdb-test\.parquet': cannot read: No such file"):
        build_imdb(imdb, ImdbSettings())


def test_reading_tells_how_far_it_is(imdb: Path) -> None:
    told: list[tuple[int, int]] = []
    list(read_parquet(imdb / "imdb-train.parquet", ("id",), lambda done, total: told.append((done, total))))
    assert told == [(20, 20)]


def test_texts_are_cut_and_names_found_as_words() -> None:
    assert cut(" a  b\nc ", 2) == "a b"
    assert cut(" a  b", None) == " a  b"
    assert phrases([]) is None
    pattern = phrases(["Up", "The Fish", "The Fish Returns"])
    assert pattern is not None
    assert pattern.sub("#", "Up up Upper the  fish returns THE FISH thefish") == "# up Upper # # thefish"


def test_settings_are_all_recorded(imdb: Path) -> None:
    settings = ImdbSettings(share=0.25, seed=2)
    assert build_imdb(imdb, settings).settings == {
        "share": 0.25, "requests": 1, "template": settings.template, "max_words": None, "limit": None, "seed": 2,
    }  # fmt: skip
    assert build_imdb(imdb, replace(settings, limit=3)).settings["limit"] == 3
