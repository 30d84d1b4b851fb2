"""Pages from the templates of this package: self-contained, HTML escaped, no scripts."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(template: str, **values: Any) -> str:  # noqa: ANN401  # whatever the template names
    """Return a page.

    Args:
        template: Name of a file in `templates/`.
        **values: What the template names; a missing one is an error.

    Returns:
        The page's text.
    """
    environment = Environment(
        loader=PackageLoader("eul_trainer"),
        autoescape=select_autoescape(disabled_extensions=("md.j2",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template(template).render(values)


def _cell(text: object) -> str:
    """Return a text as it may stand in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")
