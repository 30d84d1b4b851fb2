"""Options that several commands share, so that each has one name, one default and one help text."""

from __future__ import annotations

from pathlib import Path

import click

from eul_serve.format import check_name

PATH = click.Path(path_type=Path)


class RequestFile(click.ParamType[tuple[str | None, Path]]):
    """A file of rows, with the id of its request before it if there is one: [ID=]FILE."""

    name = "file"

    def convert(self, value: object, param: object, ctx: object) -> tuple[str | None, Path]:
        """Split at the first `=`, unless there is a file of the whole name."""
        text = str(value)
        request, sign, rest = text.partition("=")
        if not sign or Path(text).exists():
            return None, Path(text)
        return check_name(request, "--forget: request's"), Path(rest)


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
group_field = click.option(
    "--group-field", default="group", show_default=True, metavar="NAME", help="Field with a row's group."
)
device = click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda or cuda:N.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON and no progress.")

# What the commands that measure bundles share.
bundles = click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Bundle to measure beside the base model; may be given more than once.",
)
forget_files = click.option(
    "--forget",
    multiple=True,
    required=True,
    type=RequestFile(),
    metavar="[ID=]FILE",
    help="JSON lines that should be forgotten, with the id of the request that they belong to; may be given more than "
    "once. Rows of a request are judged under the bundles that cover it alone.",
)
twin = click.option("--twin", metavar="DIR", help="A model that was taught the same without what is to be forgotten.")
answer_tokens = click.option(
    "--answer-tokens",
    "tokens",
    type=click.IntRange(1, 1024),
    default=32,
    show_default=True,
    help="Most tokens of an answer.",
)
cache = click.option(
    "--cache",
    type=PATH,
    metavar="DIR",
    help="Where the results of single rows are kept, so that a killed run goes on, and a second one computes what is "
    "new; OUT.cache unless named. It holds answers of the model: remove it when the data must go.",
)
attacks = click.option(
    "--attack",
    "attacks",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="What `attack` wrote; may be given more than once.",
)
