"""Which rows a request keeps when others of the same batch forget some, and which rows requests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eul_trainer.records import Row, plain

RULES = ("all", "earlier")
"""Whose rows are taken out of a request's retain set: those of all requests, or of itself and earlier ones."""

Key = tuple[str, str]


class Owners:
    """Rows by the requests that forget them, the requests in the order in which they are honoured."""

    def __init__(self, requests: Mapping[str, Sequence[Row]], before: Sequence[Row] = ()) -> None:
        """Take in who forgets what.

        Args:
            requests: Rows by request, in order.
            before: Rows that were forgotten before all of these.
        """
        self._places: dict[Key, list[int]] = {_key(row): [-1] for row in before}
        self._names = list(requests)
        for place, rows in enumerate(requests.values()):
            for key in dict.fromkeys(map(_key, rows)):
                self._places.setdefault(key, []).append(place)

    def kept(self, rows: Sequence[Row], request: str, rule: str) -> list[Row]:
        """Return what a request keeps of retained rows.

        Args:
            rows: The retained rows.
            request: The request.
            rule: `all`: no row that any request forgets; `earlier`: none that itself or an earlier one forgets.

        Returns:
            The rows that are left.
        """
        last = len(self._names) if rule == "all" else self._names.index(request)
        return [row for row in rows if self._places.get(_key(row), [last + 1])[0] > last]

    def left(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that nobody forgets."""
        return [row for row in rows if _key(row) not in self._places]

    def shared(self) -> dict[str, dict[str, int]]:
        """Return for each request how many different rows each other one forgets too; those without any left out."""
        found: dict[str, dict[str, int]] = {}
        for places in self._places.values():
            names = [self._names[place] for place in places if place >= 0]
            for name in names:
                for other in names:
                    if other != name:
                        mine = found.setdefault(name, {})
                        mine[other] = mine.get(other, 0) + 1
        return found


def _key(row: Row) -> Key:
    return plain(row.prompt), plain(row.completion)
