"""Options that several commands share, so that each has one name, one default and one help text."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)

model = click.option(
    "--model", required=True, metavar="DIR", help="Base model: a Hugging Face directory, or a name on the hub."
)
optional_model = click.option(
    "--model", default=None, metavar="DIR", help="Base model: a Hugging Face directory, or a name on the hub."
)
forget = click.option(
    "--forget", required=True, type=PATH, metavar="FILE", help="JSON lines that the model must forget."
)
retain = click.option(
    "--retain",
    required=True,
    type=PATH,
    metavar="FILE",
    help="JSON lines that the model must keep answering as before.",
)
optional_retain = click.option(
    "--retain", default=None, type=PATH, metavar="FILE", help="JSON lines that must stay as they are."
)
out = click.option(
    "--out", required=True, type=PATH, metavar="DIR", help="Directory to write; it must be new or empty."
)
prompt_field = click.option(
    "--prompt-field", default="prompt", show_default=True, metavar="NAME", help="Field of a row with the question."
)
completion_field = click.option(
    "--completion-field", default="completion", show_default=True, metavar="NAME", help="Field with the answer."
)
device = click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda or cuda:N.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON and no progress.")
