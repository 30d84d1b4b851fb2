"""`eul` against a registry of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from eul_serve.cli.main import group

Eul = Callable[..., Result]


@pytest.fixture
def eul(tmp_path: Path) -> Eul:
    """Run `eul` against a registry of its own."""

    def run(*words: str | Path, status: int = 0, text: str | None = None, **variables: str) -> Result:
        settings = {"EUL_REGISTRY": str(tmp_path / "registry"), "EUL_ACTOR": "ann", **variables}
        result = CliRunner(env=settings).invoke(group, [str(word) for word in words], input=text)
        assert result.exit_code == status, result.output
        return result

    return run
