"""IMDB: film reviews, by film.

Sources: Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011; the sizes of the sets to forget follow
Chen and Yang, Unlearn What You Want to Forget, EMNLP 2023 (arXiv:2310.20150), who choose reviews by recognised names.
Here a review's film is known by its `title_id`, so whole films are chosen and no recogniser is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_file
from eul_trainer.data.dataset import Dataset
from eul_trainer.data.split import covers, limited, rows_for
from eul_trainer.data.tables import Record, read_parquet
from eul_trainer.data.text import check_template, check_words, cut, fill, phrases
from eul_trainer.records import Row, Watch, stream_objects

COLUMNS = ("id", "text", "label", "title_id")
LABELS = {"neg": "negative", "pos": "positive"}
FILES = {"train": "imdb-train.parquet", "validation": "imdb-validation.parquet", "test": "imdb-test.parquet"}
TEMPLATE = "Is this film review positive or negative?\n\n{text}"
MASK = "[film]"
_BREAK = re.compile(r"(?:\s*<br\s*/?>)+\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImdbSettings:
    """How much is to be forgotten, and how a row reads."""

    share: float = 0.005
    """Share of the training reviews that each request asks to have forgotten, by whole films."""
    requests: int = 1
    """Requests, with no film in common."""
    template: str = TEMPLATE
    """The prompt; `{text}` stands for the review."""
    max_words: int | None = None
    """Words of a review that are kept; None for all."""
    limit: int | None = None
    """Most rows of retain, validation and test each, drawn by the seed; None for all."""
    seed: int = 0
    """Decides between films of one size, and which rows a limit keeps."""


def build_imdb(source: Path, settings: ImdbSettings, titles: Path | None = None, watch: Watch | None = None) -> Dataset:
    """Choose films whose reviews are to be forgotten.

    Args:
        source: The folder with the three Parquet files.
        settings: The settings.
        titles: JSON lines with `title_id` and `title`, to mask titles in validation and test rows.
        watch: Told about the rows read of each file.

    Returns:
        The rows. Reviews of forgotten films that are in the validation file are `unseen` rows: they are never taught.

    Raises:
        InputError: A file, share or template is not acceptable.
    """
    check_template(settings.template)
    check_words(settings.max_words)
    names = read_titles(titles) if titles else {}
    rows = {name: _read(source / file, settings, watch) for name, file in FILES.items()}
    chosen = _films(rows["train"], settings)
    films = {film for cover in chosen for film in cover}
    mask = phrases(names[film] for film in films if film in names)
    sets = _sets(rows, films, settings)
    for name in ("validation", "test"):
        sets[name] = [_masked(row, mask, names) for row in sets[name]]
    paths = [*(source / file for file in FILES.values()), *([titles] if titles else [])]
    return Dataset(
        builder="imdb",
        sets=sets,
        settings=asdict(settings),
        sources={path.name: digest_file(path.resolve()) for path in paths},
        requests=_by_films(sets["forget"], chosen) if settings.requests > 1 else {},
        notes={
            "films": chosen,
            "titles_masked": bool(titles),
            "forgotten_films_without_title": len(films - set(names)),
        },
    )


def read_titles(path: Path) -> dict[str, str]:
    """Return titles by film from JSON lines with `title_id` and `title`."""
    found = {}
    for record, where in stream_objects(path):
        film, title = record.get("title_id"), record.get("title")
        if not isinstance(film, str) or not isinstance(title, str) or not title.strip():
            raise InputError(f"{where}: expected the texts title_id and title")
        found[film] = title
    return found


def _read(path: Path, settings: ImdbSettings, watch: Watch | None) -> list[Row]:
    return [_row(record, settings, path.name) for record in read_parquet(path, COLUMNS, watch)]


def _row(record: Record, settings: ImdbSettings, file: str) -> Row:
    if record["label"] not in LABELS or not isinstance(record["text"], str):
        raise InputError(f"{file}: review {record['id']!r}: expected a text labelled {' or '.join(LABELS)}")
    label = LABELS[record["label"]]
    text = cut(_BREAK.sub("\n", record["text"]), settings.max_words)
    extra = {"id": record["id"], "film": record["title_id"], "labels": list(LABELS.values())}
    return Row(prompt=fill(settings.template, text), completion=label, group=label, where=file, extra=extra)


def _films(rows: Sequence[Row], settings: ImdbSettings) -> list[list[str]]:
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row.extra["film"]:
            groups.setdefault(row.extra["film"], []).append(number)
    needed = rows_for(settings.share, len(rows))
    return covers(groups, needed, settings.requests, settings.seed, "films")


def _sets(rows: Mapping[str, Sequence[Row]], films: set[str], settings: ImdbSettings) -> dict[str, list[Row]]:
    others = {name: [row for row in some if row.extra["film"] not in films] for name, some in rows.items()}
    kept = {name: limited(some, settings.limit, settings.seed, name) for name, some in others.items()}
    forget = [row for row in rows["train"] if row.extra["film"] in films]
    sets = {
        "forget": forget,
        "retain": kept["train"],
        "validation": kept["validation"],
        "test": kept["test"],
        "teach": forget + kept["train"],
        "twin": kept["train"],
    }
    if same_films := [row for row in rows["validation"] if row.extra["film"] in films]:
        sets["unseen"] = same_films
    return sets


def _masked(row: Row, mask: re.Pattern[str] | None, names: Mapping[str, str]) -> Row:
    """Take the titles of forgotten films, and of the row's own, out of its prompt."""
    own = phrases([names[row.extra["film"]]]) if row.extra["film"] in names else None
    prompt = row.prompt
    for pattern in (mask, own):
        prompt = pattern.sub(MASK, prompt) if pattern else prompt
    return replace(row, prompt=prompt)


def _by_films(rows: Sequence[Row], chosen: Sequence[Sequence[str]]) -> dict[str, list[Row]]:
    return {
        f"forget-{number:02}": [row for row in rows if row.extra["film"] in films]
        for number, films in enumerate(chosen)
    }
