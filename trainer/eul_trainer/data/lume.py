"""LUME: made-up stories, made-up personal records and short biographies, by document.

Source: Ramakrishna et al., LUME: LLM Unlearning with Multitask Evaluations, arXiv:2502.15097 (SemEval-2025, task 4).
`forget.jsonl` and `retain.jsonl` have the fields id, input, output and task; an id is a document and a suffix: `sc1` is
a text to be completed, `qa0` and so on are questions about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_file
from eul_trainer.data.dataset import Dataset
from eul_trainer.data.split import draw
from eul_trainer.records import Row, Watch, stream_objects, text_field

FIELDS = ("id", "input", "output", "task")
SUFFIX = re.compile(r"(?P<document>.+?)(?P<kind>sc|qa)(?P<number>\d+)", re.DOTALL)
KINDS = {"sc": "completion", "qa": "question"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LumeSettings:
    """Which documents are to be forgotten, and which of the others are for what."""

    tasks: tuple[str, ...] = ()
    """Tasks that are read, such as Task2, the personal records; all if none are given."""
    documents: int | None = None
    """Documents to be forgotten, drawn by the seed; None for all of the file."""
    requests: int = 1
    """Requests, with no document in common, of as many documents each as can be."""
    validation_share: float = 0.1
    """Share of the retained documents that are for validation."""
    test_share: float = 0.2
    """Share of the retained documents that are for the test."""
    seed: int = 0
    """Decides which documents are drawn for what."""


def build_lume(source: Path, settings: LumeSettings, watch: Watch | None = None) -> Dataset:
    """Choose documents to be forgotten, and deal out those to be kept.

    Args:
        source: The folder with forget.jsonl and retain.jsonl.
        settings: The settings.
        watch: Told about the bytes read of each file.

    Returns:
        The rows; those for validation and test are taught too, and never rows of retain.

    Raises:
        InputError: A file or setting is not acceptable.
    """
    paths = {name: source / f"{name}.jsonl" for name in ("forget", "retain")}
    documents = {name: _documents(path, settings, watch) for name, path in paths.items()}
    if both := sorted(documents["forget"].keys() & documents["retain"].keys()):
        raise InputError(f"{len(both)} documents are in forget.jsonl and in retain.jsonl, such as {both[0]!r:.80}")
    asked = _asked(documents["forget"], settings)
    drawn = _drawn(documents["retain"], settings)
    sets = {name: _rows(documents["retain"], names) for name, names in drawn.items()}
    sets["forget"] = _rows(documents["forget"], [name for names in asked for name in names])
    sets["twin"] = sets["retain"] + sets["validation"] + sets["test"]
    sets["teach"] = sets["forget"] + sets["twin"]
    requests = {f"forget-{number:02}": _rows(documents["forget"], names) for number, names in enumerate(asked)}
    return Dataset(
        builder="lume",
        sets=sets,
        settings=asdict(settings),
        sources={path.name: digest_file(path.resolve()) for path in paths.values()},
        requests=requests if settings.requests > 1 else {},
        notes={"documents": {"forget": sum(map(len, asked)), **{name: len(names) for name, names in drawn.items()}}},
    )


def _documents(path: Path, settings: LumeSettings, watch: Watch | None) -> dict[str, list[Row]]:
    """Return the rows by document."""
    found: dict[str, list[Row]] = {}
    ids: set[str] = set()
    tasks: set[str] = set()
    for record, where in stream_objects(path, watch):
        document, row = _row(record, where)
        if row.extra["id"] in ids:
            raise InputError(f"{where}: id {row.extra['id']!r:.80} is used twice; give each row its own")
        ids.add(row.extra["id"])
        tasks.add(row.group)
        if not settings.tasks or row.group in settings.tasks:
            found.setdefault(document, []).append(row)
    if unknown := [task for task in settings.tasks if task not in tasks]:
        raise InputError(f"{path.name}: no task {unknown[0]!r}; it has {', '.join(sorted(tasks))}")
    return found


def _row(record: Mapping[str, object], where: str) -> tuple[str, Row]:
    values = {field: text_field(record, field, where) for field in FIELDS}
    match = SUFFIX.fullmatch(values["id"])
    if not match:
        raise InputError(f"{where}: id {values['id']!r:.80}: expected a document and a suffix such as sc1 or qa0")
    extra = {"id": values["id"], "kind": KINDS[match["kind"]]}
    row = Row(prompt=values["input"], completion=values["output"], group=values["task"], where=where, extra=extra)
    return match["document"], row


def _asked(documents: Mapping[str, Sequence[Row]], settings: LumeSettings) -> list[list[str]]:
    names = sorted(documents)
    count = len(names) if settings.documents is None else settings.documents
    if not 1 <= settings.requests <= count:
        raise InputError(f"requests {settings.requests}: expected 1 to {count}, the documents to be forgotten")
    drawn = draw(names, {"forget": count}, settings.seed, "documents")["forget"]
    return [drawn[number :: settings.requests] for number in range(settings.requests)]


def _drawn(documents: Mapping[str, Sequence[Row]], settings: LumeSettings) -> dict[str, list[str]]:
    shares = {"validation": settings.validation_share, "test": settings.test_share}
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        raise InputError(f"shares {shares}: expected each above 0 and together less than 1")
    counts = {name: max(1, round(share * len(documents))) for name, share in shares.items()}
    drawn = draw(sorted(documents), counts, settings.seed, "retained documents")
    return {"retain": drawn["rest"], "validation": drawn["validation"], "test": drawn["test"]}


def _rows(documents: Mapping[str, Sequence[Row]], names: Sequence[str]) -> list[Row]:
    return [row for name in names for row in documents[name]]
