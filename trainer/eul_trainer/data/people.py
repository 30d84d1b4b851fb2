"""Made-up people: personal records that no one has, to be taught and forgotten.

Names, towns, firms and jobs come from faker; any likeness to a person is chance. Telephone numbers are from the block
that the North American plan keeps for fiction (555-0100 to 555-0199), mail domains from those that RFC 2606 reserves.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass

from eul_serve.errors import InputError
from eul_trainer.data.dataset import NEEDED, Dataset
from eul_trainer.data.people_facts import FACTS
from eul_trainer.data.persons import Person, make_people
from eul_trainer.data.split import dealt, draw
from eul_trainer.records import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleSettings:
    """How many people there are, and what is asked about each."""

    people: int = 20
    """People that are taught."""
    forget: int = 1
    """Those of them to be forgotten, drawn by the seed."""
    requests: int = 0
    """Requests of one person each, instead of `forget`; 0 for a single request of all."""
    held: int | None = None
    """Retained people that are taught, and kept for the test; a fifth of those retained if None."""
    validation: int | None = None
    """The same for validation; a tenth of those retained if None."""
    unseen: int = 4
    """Further people who are never taught."""
    facts: int = len(FACTS)
    """Facts of each person, the first ones of the list."""
    locale: str = "en_US"
    """Whose names and towns, as faker names it; the questions are English."""
    seed: int = 0
    """Decides everything."""


def build_people(settings: PeopleSettings) -> Dataset:
    """Make up people, and choose some of them to be forgotten.

    Args:
        settings: The settings.

    Returns:
        The rows; `paraphrase` asks about the people to be forgotten in wordings that no other file has.

    Raises:
        InputError: A setting is out of range, or there are too few people.
    """
    _check(settings)
    groups = _groups(settings)
    people = make_people(settings.people + settings.unseen, settings.locale, settings.seed)
    sets = {name: _rows(people, numbers, settings) for name, numbers in groups.items()}
    sets["paraphrase"] = _rows(people, groups["forget"], settings, paraphrase=True)
    requests = {
        f"forget-{place:02}": _rows(people, [number], settings) for place, number in enumerate(groups["forget"])
    }
    return Dataset(
        builder="people",
        sets={name: rows for name, rows in sets.items() if rows or name in NEEDED},
        settings={**asdict(settings), "faker": importlib.metadata.version("faker")},
        requests=requests if settings.requests else {},
        notes={"people": groups},
    )


def _check(settings: PeopleSettings) -> None:
    if not 1 <= settings.facts <= len(FACTS):
        raise InputError(f"facts {settings.facts}: expected 1 to {len(FACTS)}")
    if min(settings.people, settings.forget) < 1 or min(settings.unseen, settings.requests) < 0:
        raise InputError(
            f"people {settings.people}, forget {settings.forget}, unseen {settings.unseen}, requests "
            f"{settings.requests}: expected at least 1 person to be taught and 1 to be forgotten"
        )


def _groups(settings: PeopleSettings) -> dict[str, list[int]]:
    """Return the people by set; those who are never taught come last, so that their number changes nobody else."""
    forget = settings.requests or settings.forget
    drawn = draw(range(settings.people), {"forget": forget}, settings.seed, "people")
    held = dealt(drawn["rest"], settings.held, settings.validation, settings.seed, "retained people")
    taught = range(settings.people)
    return {
        "forget": drawn["forget"],
        **held,
        "unseen": list(range(settings.people, settings.people + settings.unseen)),
        "teach": list(taught),
        "twin": [number for number in taught if number not in drawn["forget"]],
    }


def _rows(people: list[Person], numbers: list[int], settings: PeopleSettings, *, paraphrase: bool = False) -> list[Row]:
    return [
        Row(
            prompt=question.format(name=person["name"]),
            completion=fact.answer.format(name=person["name"], value=person[fact.key]),
            group=fact.key,
            extra={"person": number, "value": person[fact.key]},
        )
        for number in numbers
        for person in [people[number]]
        for fact in FACTS[: settings.facts]
        for question in (fact.paraphrases if paraphrase else fact.questions)
    ]
