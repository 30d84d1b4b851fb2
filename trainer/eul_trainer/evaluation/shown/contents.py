"""The sections of a page: those that have something to show, by their id and title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TITLES = {
    "trade": "Forgotten against kept",
    "answers": "Answers before and after",
    "losses": "Losses by request",
    "verdicts": "Verdicts",
    "compared": "Beside a twin",
    "membership": "Membership inference",
    "attacks": "Attacks",
    "sequences": "Requests that come and go",
    "gaps": "What could not be measured",
    "settings": "Settings and digests",
    "limits": "What this does not say",
}


def contents(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the sections.

    Args:
        values: What the page's template is given, by name.

    Returns:
        Title by id, for sections with something to show; `losses` always has.
    """
    return {name: title for name, title in TITLES.items() if values.get(name) or name == "losses"}
