"""`eul classify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from eul_serve.cli.connection import connect, connection_options
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.cli.prompt import prompt_options, read_prompt
from eul_serve.cli.text import echo_json, echo_table


@click.command(epilog=examples("eul classify 'The film was dull. It was' --label ' good' --label ' bad'"))
@prompt_options
@click.option(
    "--label", "labels", multiple=True, required=True, help="A label, exactly as it would follow the prompt; 2 or more."
)
@connection_options
@json_option
def command(
    prompt: str,
    adapter: str,
    chat: bool,
    system: str | None,
    labels: tuple[str, ...],
    as_json: bool,
    **connection: Any,  # noqa: ANN401  # the options of `connect`
) -> None:
    """Ask a server which label is most likely after PROMPT (`-` reads it from the standard input)."""
    with connect(**connection) as client:
        found = client.classify(read_prompt(prompt, chat, system), labels, adapter=adapter)
    if as_json:
        echo_json(asdict(found))
        return
    click.echo(found.label)
    rows = [(label, f"{probability:.4f}") for label, probability in found.probabilities.items()]
    echo_table(("LABEL", "PROBABILITY"), rows)
    click.echo(f"[{found.revision}]", err=True)
