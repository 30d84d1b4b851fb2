"""Options and arguments that say what to ask."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from eul_serve.errors import InputError

_F = TypeVar("_F", bound=Callable[..., Any])


def prompt_options(function: _F) -> _F:
    """Take what `read_prompt` needs, and the adapter."""
    options = (
        click.argument("prompt"),
        click.option(
            "--adapter",
            default="",
            metavar="NAME[:ALIAS|@REVISION]",
            help="The bundle; your default when left out. `base` is the base model, where the policy allows it.",
        ),
        click.option("--chat", is_flag=True, help="Send the prompt as a user's message, through the chat template."),
        click.option("--system", metavar="TEXT", help="Instructions for a --chat."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def read_prompt(prompt: str, chat: bool, system: str | None) -> str | list[tuple[str, str]]:
    """Return the prompt for a client.

    Args:
        prompt: The text; `-` reads the standard input.
        chat: Whether it is a user's message.
        system: Instructions that go before it.

    Returns:
        Text, or messages.

    Raises:
        InputError: Instructions without --chat, or an input that is not text.
    """
    try:
        text = sys.stdin.read() if prompt == "-" else prompt
    except UnicodeDecodeError as error:
        raise InputError("standard input: expected UTF-8 text") from error
    if not chat:
        if system is not None:
            raise InputError("--system: only a --chat has instructions; add --chat")
        return text
    return [*([("system", system)] if system is not None else []), ("user", text)]
