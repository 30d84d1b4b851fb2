"""How many ways around the server's decisions were tried, and how many got through.

    python tests/benchmarks/service/count_bypass.py [--out docs/benchmarks/service]

Runs tests/eul_serve/bypass and counts: each attempt is sent to a server with something to hide, once with every defence
on, where it must fail, and once with the one defence off that stops it, where it must succeed (`controls`): an attempt
that could not succeed in any case would prove nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share

from common.entry import guarded
from common.output import deliver
from loading.record import begun

from eul_serve.errors import EngineError

ROOT = Path(__file__).resolve().parents[3]
SUITE = "tests/eul_serve/bypass"
ATTEMPT, CONTROL = "test_nothing_gets_through", "test_without_the_defence_it_would"


def run_suite() -> Counter[tuple[str, bool]]:
    """Return how many cases of each test passed and failed."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.xml"
        line = [sys.executable, "-m", "pytest", SUITE, "-q", f"--junitxml={report}"]
        done = subprocess.run(line, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        if done.returncode not in (0, 1) or not report.exists():  # 1: some failed, which is what is counted
            raise EngineError(f"the suite did not run: status {done.returncode}; run `pytest {SUITE}`")
        return count(report.read_text(encoding="utf-8"))


def count(report: str) -> Counter[tuple[str, bool]]:
    """Return how many cases of each test a JUnit report has, by whether they passed."""
    found: Counter[tuple[str, bool]] = Counter()
    for case in ElementTree.fromstring(report).iter("testcase"):
        passed = not any(case.find(word) is not None for word in ("failure", "error", "skipped"))
        found[case.attrib["name"].partition("[")[0], passed] += 1
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None, help="directory for bypass.json")
    chosen = parser.parse_args(arguments)
    shown = sys.argv[1:] if arguments is None else arguments
    found = run_suite()
    record = {
        **begun("ways around the server's decisions", __file__, shown),
        "attempts": found[ATTEMPT, True] + found[ATTEMPT, False],
        "through": found[ATTEMPT, False],
        "controls": found[CONTROL, True] + found[CONTROL, False],
        "controls_that_fail": found[CONTROL, False],
    }
    deliver(record, chosen.out, "bypass")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
