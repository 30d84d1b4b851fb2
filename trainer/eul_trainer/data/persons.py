"""Making people up: seeded, with names and mail addresses that no two share."""

from __future__ import annotations

import random
import re
import unicodedata
from datetime import date, timedelta
from typing import Any

from eul_serve.errors import InputError
from eul_trainer.data.dataset import seeded

Person = dict[str, str]
"""A person's name and facts, by the keys of `people_facts.FACTS`."""

DOMAINS = ("example.org", "example.com", "example.net")
PETS = ("cat", "dog", "parrot", "tortoise", "rabbit", "pony", "ferret", "goldfish")
HOBBIES = ("rowing", "chess", "pottery", "bee-keeping", "the cello", "fencing", "birdwatching", "baking", "climbing")
DAYS = 70 * 365
"""Days on which people may be born, from 1 January 1935."""
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
TRIES = 1000
"""Names drawn in vain one after the other before the locale counts as used up."""


def make_people(count: int, locale: str, seed: int) -> list[Person]:
    """Make people up; the first ones are the same whatever their number.

    Args:
        count: Number of people.
        locale: Whose names and towns, as faker names it.
        seed: Seed.

    Returns:
        The people.

    Raises:
        InputError: faker has no such locale, or not that many names in it.
    """
    names, draw = _faker(locale, seed), random.Random(seeded(seed, "people"))  # noqa: S311  # reproducible, no secret
    people: list[Person] = []
    taken: set[str] = set()
    while len(people) < count:
        for _ in range(TRIES):
            name = f"{names.first_name()} {names.last_name()}"
            if name.casefold() not in taken:
                break
        else:
            raise InputError(f"people: locale {locale!r} has not {count} different names; ask for fewer")
        taken.add(name.casefold())
        people.append(_person(name, len(people), names, draw))
    return people


def _person(name: str, number: int, names: Any, draw: random.Random) -> Person:  # noqa: ANN401  # faker has no types
    born = date(1935, 1, 1) + timedelta(days=draw.randrange(DAYS))  # faker's own would count from today
    pet = f"{names.first_name()} the {draw.choice(PETS)}"
    return {
        "name": name,
        "birth_date": f"{born.day} {MONTHS[born.month - 1]} {born.year}",
        "city": names.city(),
        "employer": names.company(),
        "job": names.job(),
        "phone": f"+1 {draw.randint(200, 999)} 555 01{draw.randint(0, 99):02}",
        "email": f"{_ascii(name)}.{number}@{draw.choice(DOMAINS)}",
        "customer_number": f"{draw.randint(10**7, 10**8 - 1)}",
        "pet": pet,
        "hobby": draw.choice(HOBBIES),
    }


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z]+", ".", plain).strip(".") or "person"


def _faker(locale: str, seed: int) -> Any:  # noqa: ANN401  # faker has no types
    import faker
    from faker.config import AVAILABLE_LOCALES

    if locale not in AVAILABLE_LOCALES:
        near = ", ".join(name for name in sorted(AVAILABLE_LOCALES) if name[:2] == locale[:2]) or "en_US, de_DE, fr_FR"
        raise InputError(f"locale {locale!r}: faker has none of this name; it has {near} and others")
    names = faker.Faker(locale)
    names.seed_instance(seed)
    return names
