"""Mutation testing of one package of the trainer: change one thing, run its tests, and expect them to fail.

    python tests/mutation/mutate.py objectives
    python tests/mutation/mutate.py fusion --jobs 2 --json fusion.json -- -x tests/eul_trainer/test_trainer_fusion.py

The tests of each package, and the reason for every mutant that may survive, are in survivors.toml. The exit status is 1
where a mutant survives without a reason, or a reason is for no mutant any more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mutants import Mutant, mutants_of
from reach import Reach, Watcher

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOURCES = ROOT / "trainer" / "eul_trainer"
LIMIT = 120
"""Seconds after which a run counts as failed: a mutant that never ends is caught."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the tests."""

    module: str
    """The changed module; empty where nothing is changed."""
    mutant: Mutant
    """The change."""
    file: Path = Path()
    """Its file."""

    @property
    def name(self) -> str:
        """What survivors.toml calls it."""
        return f"{self.module.removeprefix('eul_trainer.')} {self.mutant.name}"


class Changed(MetaPathFinder, Loader):
    """Gives one module another source."""

    def __init__(self, module: str, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find the changed module, and no other."""
        return ModuleSpec(name, self) if name == self._module else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source."""
        exec(compile(self._source, f"<{self._module}>", "exec"), module.__dict__)


def run_tests(case: Case, arguments: list[str], reach: tuple[Path, Path] | None = None) -> int:
    """Run the tests in a fork with one module changed, and return pytest's exit status; 0 means that all passed.

    Args:
        case: The change.
        arguments: Arguments for pytest.
        reach: A folder of sources, and the file to which is written which test runs which of their lines.

    Returns:
        The status.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        signal.alarm(LIMIT)
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.chdir(ROOT)
        if case.module:
            sys.meta_path.insert(0, Changed(case.module, case.mutant.source))
        with tempfile.TemporaryDirectory() as folder:
            watchers = [Watcher(reach[0])] if reach else []
            line = ["-x", "-q", "--no-header", f"--basetemp={folder}/pytest", *arguments]
            status = int(pytest.main(line, plugins=watchers))
            for watcher in watchers:
                watcher.write(reach[1])
    finally:
        os._exit(status)


def run_quick_first(case: Case, tests: list[str]) -> int:
    """Run tests with few examples, and with all where none fails."""
    return run_tests(case, ["--hypothesis-profile=quick", *tests]) or run_tests(case, tests)


def told(case: Case, status: int) -> int:
    """Say on stderr how a run ended, and return its status."""
    sys.stderr.write(f"{'killed' if status else 'SURVIVED'} {case.name} (line {case.mutant.line})\n")
    return status


def cases_of(package: str) -> list[Case]:
    """Return every mutant of a package of the trainer."""
    found = []
    for path in sorted((SOURCES / package).rglob("*.py")):
        parts = path.relative_to(SOURCES.parent).with_suffix("").parts
        if path.name != "__init__.py":
            found += [Case(".".join(parts), mutant, path) for mutant in mutants_of(path)]
    return found


def warm_up(modules: list[str]) -> None:
    """Import what is never changed once, before forking."""
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)


def main() -> int:
    """Run every mutant of a package and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="folder under trainer/eul_trainer")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result here")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="mutants whose name has this text; may be given again",
    )
    parser.add_argument("tests", nargs="*", help="arguments for pytest, after --")
    chosen = parser.parse_args()
    known: dict[str, Any] = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))[chosen.package]
    arguments = chosen.tests or known["tests"]
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "reach.json"
        if run_tests(Case("", Mutant("", 0, "")), arguments, (SOURCES / chosen.package, noted)):
            sys.stderr.write(f"the tests fail without any change: pytest {' '.join(arguments)}\n")
            return 1
        reach = Reach.read(noted)
    warm_up(reach.modules)
    cases = [
        case for case in cases_of(chosen.package) if not chosen.only or any(text in case.name for text in chosen.only)
    ]
    started = time.perf_counter()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        ways = [(case, reach.tests(case.file, case.mutant.line)) for case in cases]
        statuses = list(pool.map(lambda way: told(way[0], run_quick_first(*way)), ways))
    survivors = [case for case, status in zip(cases, statuses, strict=True) if status == 0]
    result = judge(survivors, cases, known.get("reasons", {}), complete=not chosen.only)
    result |= {"package": chosen.package, "mutants": len(cases), "seconds": round(time.perf_counter() - started, 1)}
    text = json.dumps(result, indent=2, sort_keys=True) + "\n"
    sys.stdout.write(text)
    if chosen.json:
        chosen.json.write_text(text, encoding="utf-8")
    return 1 if result["unexplained"] or result["stale_reasons"] else 0


def judge(survivors: list[Case], cases: list[Case], reasons: dict[str, str], *, complete: bool) -> dict[str, Any]:
    """Sort the survivors by whether there is a reason for them.

    Args:
        survivors: The mutants that no test caught.
        cases: All mutants.
        reasons: Reasons by the mutants' names.
        complete: Whether all mutants of the package were run.

    Returns:
        Plain JSON: counts, survivors with their reasons and without, and reasons that are for no survivor.
    """
    names = {case.name for case in survivors}
    return {
        "killed": len(cases) - len(survivors),
        "explained": {name: reasons[name] for name in sorted(names & reasons.keys())},
        "unexplained": [f"{case.name} (line {case.mutant.line})" for case in survivors if case.name not in reasons],
        "stale_reasons": sorted(reasons.keys() - names) if complete else [],
    }


if __name__ == "__main__":
    sys.exit(main())
