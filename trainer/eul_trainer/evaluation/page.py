"""HTML pages from the templates of this package: self-contained, escaped, no scripts."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


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
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)
