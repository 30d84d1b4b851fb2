"""A browser and axe for the tests that look at pages; a conftest imports what its tests use.

EUL_NO_BROWSER=1 leaves these tests out; without it a browser or axe that is missing fails them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium

AXE = Path(__file__).resolve().parents[2] / ".tools" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a browser, where none is wanted."""
    if os.environ.get("EUL_NO_BROWSER") == "1":
        out = [item for item in items if "browser" in getattr(item, "fixturenames", ())]
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe."""
    assert AXE.exists(), "axe-core is missing: run .ci/browser, or leave these tests out with EUL_NO_BROWSER=1"
    return AXE.read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless Chromium."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert program, "no Chromium: run .ci/browser, or leave these tests out with EUL_NO_BROWSER=1"
    found = Chromium(Path(program), tmp_path_factory.mktemp("profile"))
    yield found
    found.close()
