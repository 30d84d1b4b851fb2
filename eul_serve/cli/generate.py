"""`eul generate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from eul_serve.cli.connection import connect, connection_options
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.cli.prompt import prompt_options, read_prompt
from eul_serve.cli.text import echo_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eul_serve.client import Answer, Part


@click.command(
    epilog=examples(
        "export EUL_TOKEN=...",
        "eul generate 'Who wrote Hamlet?'",
        "eul generate --chat --stream 'Who wrote Hamlet?'",
        "eul generate --adapter poems:stable --max-tokens 100 --json 'Who wrote Hamlet?'",
    )
)
@prompt_options
@click.option("--stream", is_flag=True, help="Print the answer as it comes; with --json, one line for each piece.")
@click.option("--max-tokens", type=int, help="Most tokens to make; 64 by default.")
@click.option("--temperature", type=float, help="0, the default, is greedy; at most 2.")
@click.option("--top-p", type=float, help="Nucleus mass, above 0 to 1.")
@click.option("--top-k", type=int, help="Most likely tokens to choose from; 0 is all.")
@click.option("--seed", type=int, help="Seed of the sampler.")
@click.option("--stop", multiple=True, help="Text that ends the answer; may be given several times.")
@click.option("--logprobs", is_flag=True, help="Ask for log-probabilities too (needs --json and the right).")
@connection_options
@json_option
def command(
    prompt: str,
    adapter: str,
    chat: bool,
    system: str | None,
    stream: bool,
    as_json: bool,
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    seed: int | None,
    stop: tuple[str, ...],
    logprobs: bool,
    **connection: Any,  # noqa: ANN401  # the options of `connect`
) -> None:
    """Ask a server to answer PROMPT (`-` reads it from the standard input).

    The answer goes to the standard output; the revision that produced it, to the standard error.
    """
    sampling = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "stop": stop or None,
        "logprobs": logprobs or None,
    }
    text = read_prompt(prompt, chat, system)
    with connect(**connection) as client:
        if stream:
            _print_stream(client.generate_stream(text, adapter=adapter, **sampling), as_json)
        else:
            _print_answer(client.generate(text, adapter=adapter, **sampling), as_json)


def _print_answer(answer: Answer, as_json: bool) -> None:
    if as_json:
        echo_json(asdict(answer))
    else:
        click.echo(answer.text)
        _print_end(answer)


def _print_stream(parts: Iterator[Part], as_json: bool) -> None:
    last = None
    for last in parts:
        if as_json:
            click.echo(json.dumps(asdict(last), sort_keys=True))
        else:
            click.echo(last.text, nl=False)
    if last is not None and not as_json:
        click.echo()
        _print_end(last)


def _print_end(end: Answer | Part) -> None:
    usage = end.usage
    click.echo(
        f"[{end.revision}, {usage.prompt_tokens} + {usage.completion_tokens} tokens, {end.finish_reason}]", err=True
    )
