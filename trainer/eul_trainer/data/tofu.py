"""TOFU: made-up authors, some of whom are to be forgotten.

Source: Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, arXiv:2401.06121. 200 authors with 20 questions
each; forget01, forget05 and forget10 are the last 2, 10 and 20 of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_file
from eul_trainer.data.dataset import NEEDED, Dataset
from eul_trainer.data.split import dealt, draw
from eul_trainer.data.tofu_files import (
    AUTHOR_ROWS,
    Questions,
    Wordings,
    paraphrased,
    read_full,
    read_questions,
    read_wordings,
    worded,
)
from eul_trainer.records import Row, row_key

SPLITS = {"forget01": 2, "forget05": 10, "forget10": 20}
"""Authors that each published split forgets."""
GENERAL = {"real_authors": "real_authors.json", "world_facts": "world_facts.json"}
"""Further groups of the test set, by file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TofuSettings:
    """Which authors are taught, and which of them forgotten."""

    split: str | None = None
    """A published split, whose last authors are forgotten and all 200 taught; instead of the next three."""
    authors: int = 10
    """Authors in the subset that is taught."""
    first_author: int = 0
    """First author of the subset, from 0."""
    forget_authors: int = 1
    """Authors of the subset to be forgotten, drawn by the seed."""
    requests: int = 0
    """Requests of one author each, instead of `forget_authors`; 0 for a single request of all."""
    rows_per_author: int = AUTHOR_ROWS
    """Rows taken of each author, the first ones, 1 to 20."""
    held_authors: int | None = None
    """Retained authors that are taught, and kept for the test; a fifth of those retained if None, 20 at most."""
    validation_authors: int | None = None
    """The same for validation; a tenth of those retained if None, 10 at most."""
    unseen_authors: int | None = None
    """Authors that are never taught; 2 if None, none with a split."""
    seed: int = 0
    """Decides which authors are drawn for what."""


def build_tofu(source: Path, settings: TofuSettings) -> Dataset:
    """Choose the rows of a request about TOFU authors.

    Args:
        source: The folder with TOFU's JSON-lines files.
        settings: The settings.

    Returns:
        The rows: forget, retain, validation and test, `teach` (all that the model is to be taught), `twin` (the same
        without the rows to forget), `unseen` (never taught), and `paraphrase` where the perturbed files have it.

    Raises:
        InputError: A file or setting is not acceptable, or there are too few authors.
    """
    full = read_full(source)
    _check(settings, full.authors)
    chosen = _of_split(source, settings, full) if settings.split else _of_subset(settings, full.authors)
    wordings, perturbed = read_wordings(source)
    general = [source / file for file in GENERAL.values() if (source / file).is_file()]
    sets = _sets(full, chosen, settings, wordings)
    for path in general:
        sets["test"] += worded(read_questions(path).rows, path.stem, wordings)
    split = [source / f"{settings.split}.json"] if settings.split else []
    return Dataset(
        builder="tofu",
        sets=sets,
        settings=asdict(settings),
        sources={path.name: digest_file(path.resolve()) for path in (full.path, *split, *general, *perturbed)},
        requests=_by_author(sets["forget"]) if settings.requests else {},
        notes={
            "authors": {name: authors for name, authors in chosen.items() if authors},
            "absent_files": [file for file in GENERAL.values() if not (source / file).is_file()],
            "forget_without_paraphrase": len(sets["forget"]) - len(sets.get("paraphrase", [])),
        },
    )


def _sets(
    full: Questions, chosen: dict[str, list[int]], settings: TofuSettings, wordings: Wordings
) -> dict[str, list[Row]]:
    taught = sorted(author for name, authors in chosen.items() if name != "unseen" for author in authors)
    chosen = {**chosen, "teach": taught, "twin": [author for author in taught if author not in chosen["forget"]]}
    sets: dict[str, list[Row]] = {}
    for name, authors in chosen.items():
        sets[name] = []
        for author in authors:
            group = {"forget": f"author-{author:03}", "test": "held_authors"}.get(name, "authors")
            rows = full.of(author)[: settings.rows_per_author]
            sets[name] += worded(rows, group, wordings if name not in ("teach", "twin") else {}, author=author)
    sets["paraphrase"] = paraphrased(sets["forget"])
    return {name: rows for name, rows in sets.items() if rows or name in NEEDED}


def _by_author(rows: list[Row]) -> dict[str, list[Row]]:
    groups = sorted({row.group for row in rows})
    return {f"forget-{number:02}": [row for row in rows if row.group == group] for number, group in enumerate(groups)}


def _check(settings: TofuSettings, authors: int) -> None:
    if settings.split is not None and settings.split not in SPLITS:
        raise InputError(f"split {settings.split!r}: expected one of {', '.join(SPLITS)}")
    if not 1 <= settings.rows_per_author <= AUTHOR_ROWS:
        raise InputError(f"rows per author {settings.rows_per_author}: expected 1 to {AUTHOR_ROWS}")
    last = settings.first_author + settings.authors
    if not 0 <= settings.first_author < last <= authors:
        raise InputError(
            f"authors {settings.first_author} to {last - 1}: the file has 0 to {authors - 1}; lower --first-author or "
            "--authors"
        )
    if settings.requests < 0 or settings.forget_authors < 1:
        raise InputError(
            f"forget authors {settings.forget_authors}, requests {settings.requests}: expected at least 1 author"
        )


def _of_split(source: Path, settings: TofuSettings, full: Questions) -> dict[str, list[int]]:
    """Return the authors by set for a published split, found by its rows."""
    wanted = {row_key(row) for row in read_questions(source / f"{settings.split}.json").rows}
    forget = [author for author in range(full.authors) if row_key(full.of(author)[0]) in wanted]
    if wanted != {row_key(row) for author in forget for row in full.of(author)}:
        raise InputError(f"{settings.split}.json: expected whole authors of full.json, found other rows; get both anew")
    rest = [author for author in range(full.authors) if author not in forget]
    return {"forget": forget, **_dealt(rest, settings, settings.unseen_authors or 0)}


def _of_subset(settings: TofuSettings, authors: int) -> dict[str, list[int]]:
    """Return the authors by set for a run of authors of the file."""
    subset = range(settings.first_author, settings.first_author + settings.authors)
    drawn = draw(subset, {"forget": settings.requests or settings.forget_authors}, settings.seed, "authors")
    others = [author for author in range(authors) if author not in subset]
    wanted = 2 if settings.unseen_authors is None else settings.unseen_authors
    unseen = draw(others, {"unseen": wanted}, settings.seed, "authors outside of the subset")["unseen"]
    return {"forget": drawn["forget"], **_dealt(drawn["rest"], settings, 0), "unseen": unseen}


def _dealt(rest: list[int], settings: TofuSettings, unseen: int) -> dict[str, list[int]]:
    """Deal the authors that are not forgotten out to the other sets."""
    held, validation = settings.held_authors, settings.validation_authors
    return dealt(rest, held, validation, settings.seed, "retained authors", unseen=unseen)
