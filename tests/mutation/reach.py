"""Which tests run which line, so that a mutant meets only those that can notice it, the quickest first."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

SITE = "/site-packages/"
"""Part of the paths of files that no mutant changes."""
SHARED = "shared"
"""Context of fixtures that several tests share: their lines belong to every test, as those of an import do."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The tests of a package, by what they run."""

    seconds: dict[str, float]
    """Seconds of every test."""
    lines: dict[str, dict[str, list[str]]]
    """Tests by file and line; none listed where all may depend on it."""
    modules: list[str]
    """Modules that the tests import and that are not ours."""

    @property
    def all(self) -> list[str]:
        """All tests, the quickest first."""
        return sorted(self.seconds, key=self.seconds.__getitem__)

    def tests(self, file: Path, line: int) -> list[str]:
        """Return the tests to run for a change of a line, the quickest first.

        Args:
            file: The changed file.
            line: The line.

        Returns:
            Their ids; all of them for a line that is run at import, by a shared fixture, or by no test.
        """
        found = self.lines.get(str(file), {}).get(str(line))
        return sorted(found, key=self.seconds.__getitem__) if found else self.all

    @classmethod
    def read(cls, path: Path) -> Reach:
        """Read what a watcher wrote."""
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(found["seconds"], found["lines"], found["modules"])


class Watcher:
    """A plugin of pytest that notes who runs what."""

    def __init__(self, folder: Path) -> None:
        self._coverage = coverage.Coverage(data_file=None, config_file=False, source=[str(folder)])
        self._seconds: dict[str, float] = defaultdict(float)
        self._test = ""
        self._coverage.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._test = item.nodeid
        self._coverage.switch_context(item.nodeid)
        yield
        self._test = ""
        self._coverage.switch_context("")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        if fixturedef.scope != "function":
            self._coverage.switch_context(SHARED)
        yield
        self._coverage.switch_context(self._test)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def write(self, path: Path) -> None:
        """Write what was noted."""
        self._coverage.stop()
        data, lines = self._coverage.get_data(), {}
        for file in data.measured_files():
            found = data.contexts_by_lineno(file)
            lines[file] = {line: [] if {"", SHARED} & set(tests) else tests for line, tests in found.items()}
        modules = [name for name, module in sys.modules.items() if SITE in (getattr(module, "__file__", "") or "")]
        found = {"seconds": self._seconds, "lines": lines, "modules": modules}
        path.write_text(json.dumps(found), encoding="utf-8")
