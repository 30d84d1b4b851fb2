"""SAMSum: conversations and their summaries, by speaker.

Sources: Gliwa et al., SAMSum Corpus, arXiv:1911.12237; as in Chen and Yang, Unlearn What You Want to Forget, EMNLP 2023
(arXiv:2310.20150), all conversations of chosen speakers are forgotten. A speaker is a first name here, as in the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_file
from eul_trainer.data.dataset import Dataset
from eul_trainer.data.split import covers, limited, rows_for
from eul_trainer.data.tables import Record, read_zip
from eul_trainer.data.text import check_template, check_words, fill
from eul_trainer.records import Row, Watch, plain

COLUMNS = ("id", "dialogue", "summary")
TEMPLATE = "Summarise this conversation.\n\n{text}"
_SPEAKER = re.compile(r"^([^\W\d_][^:\n]{0,39}?)\s*:(?!//)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamsumSettings:
    """Whose conversations are to be forgotten, and how a row reads."""

    speakers: tuple[str, ...] = ()
    """The speakers; if none are given, they are chosen by share."""
    share: float = 0.005
    """Share of the training conversations that each request asks to have forgotten, by whole speakers."""
    requests: int = 1
    """Requests, with no speaker in common; given speakers are one request."""
    template: str = TEMPLATE
    """The prompt; `{text}` stands for the conversation."""
    max_words: int | None = None
    """Longer conversations are left out everywhere, since a cut one would not fit its summary; None for none."""
    limit: int | None = None
    """Most rows of retain, validation and test each, drawn by the seed; None for all."""
    seed: int = 0
    """Decides between speakers with as many conversations, and which rows a limit keeps."""


def build_samsum(source: Path, settings: SamsumSettings, watch: Watch | None = None) -> Dataset:
    """Choose speakers whose conversations are to be forgotten.

    Args:
        source: The zip of Arrow streams, with the splits train, validation and test.
        settings: The settings.
        watch: Told about the bytes read of each split.

    Returns:
        The rows. Validation and test keep conversations of the chosen first names, who are other people there.

    Raises:
        InputError: The zip, a speaker or the share is not acceptable.
    """
    check_template(settings.template)
    check_words(settings.max_words)
    records = {name: list(read_zip(source, name, COLUMNS, watch)) for name in ("train", "validation", "test")}
    rows = {name: [row for record in some if (row := _row(record, settings))] for name, some in records.items()}
    groups = _by_speaker(rows["train"])
    chosen = _chosen(groups, settings, len(rows["train"]))
    sets, requests = _sets(rows, groups, chosen, settings)
    return Dataset(
        builder="samsum",
        sets=sets,
        settings=asdict(settings),
        sources={source.name: digest_file(source.resolve())},
        requests=requests if len(chosen) > 1 else {},
        notes={
            "speakers": chosen,
            "names_masked": False,
            "left_out": {name: len(records[name]) - len(rows[name]) for name in rows},
            "same_names": {name: _naming(rows[name], chosen) for name in ("validation", "test")},
        },
    )


def speakers(dialogue: str) -> list[str]:
    """Return who speaks in a conversation: what stands before the first colon of each line, in order."""
    return list(dict.fromkeys(found.strip() for found in _SPEAKER.findall(dialogue.replace("\r\n", "\n"))))


def _row(record: Record, settings: SamsumSettings) -> Row | None:
    """Return a record as a row; None where it is empty or too long."""
    dialogue, summary = record["dialogue"] or "", record["summary"] or ""
    long = settings.max_words is not None and len(dialogue.split()) > settings.max_words
    if long or not dialogue.strip() or not summary.strip():
        return None
    text = dialogue.replace("\r\n", "\n")
    extra = {"id": record["id"], "speakers": speakers(text)}
    return Row(prompt=fill(settings.template, text), completion=summary.strip(), group="dialogues", extra=extra)


def _by_speaker(rows: Sequence[Row]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        for speaker in {plain(name) for name in row.extra["speakers"]}:
            groups.setdefault(speaker, []).append(number)
    return groups


def _chosen(groups: Mapping[str, Sequence[int]], settings: SamsumSettings, rows: int) -> list[list[str]]:
    if not settings.speakers:
        return covers(groups, rows_for(settings.share, rows), settings.requests, settings.seed, "speakers")
    wanted = list(dict.fromkeys(plain(name) for name in settings.speakers))
    for name in wanted:
        if name not in groups:
            near = sorted(other for other in groups if other[:2] == name[:2])[:8]
            raise InputError(
                f"speaker {name!r}: not in the training conversations; near are {', '.join(near) or 'none'}"
            )
    return [wanted]


def _sets(
    rows: Mapping[str, Sequence[Row]],
    groups: Mapping[str, Sequence[int]],
    chosen: Sequence[Sequence[str]],
    settings: SamsumSettings,
) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """Return the sets, and the rows of each request; a conversation belongs to the first request that asks for it."""
    requests: dict[str, list[Row]] = {}
    taken: set[int] = set()
    for number, names in enumerate(chosen):
        asked = {row for name in names for row in groups[name]} - taken
        requests[f"forget-{number:02}"] = [rows["train"][row] for row in sorted(asked)]
        taken |= asked
    others = {**rows, "train": [row for number, row in enumerate(rows["train"]) if number not in taken]}
    kept = {name: limited(some, settings.limit, settings.seed, name) for name, some in others.items()}
    forget = [rows["train"][number] for number in sorted(taken)]
    sets = {
        "forget": forget,
        "retain": kept["train"],
        "validation": kept["validation"],
        "test": kept["test"],
        "teach": forget + kept["train"],
        "twin": kept["train"],
    }
    return sets, requests


def _naming(rows: Sequence[Row], chosen: Sequence[Sequence[str]]) -> int:
    names = {name for some in chosen for name in some}
    return sum(any(plain(name) in names for name in row.extra["speakers"]) for row in rows)
