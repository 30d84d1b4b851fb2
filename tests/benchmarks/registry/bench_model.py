"""Random clients on one registry, which die, lose answers and repeat themselves: how many promises are broken.

    python tests/benchmarks/registry/bench_model.py [--steps 10000] [--seed 100000] [--out FILE]

Each step is one act (publish, promote, roll back, hold, ban, collect, delete, ...) of two or three clients whose
operations on the store interleave as a seed says; after each change a fresh reader looks at everything. `lost` counts
revisions that are lost or half visible, acknowledged acts that did not come about, and every other broken promise.
`controls` are registries with one defence broken on purpose, in which as many steps must find something
(`controls_found`).
See tests/eul_serve/registry/model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the model, which is a test

from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, deliver

from tests.eul_serve.registry.model.broken import BROKEN
from tests.eul_serve.registry.model.stories import tell, write_bundles


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=100_000, help="of the first world; each has the next number")
    parser.add_argument("--out", type=Path, default=None, help="file for the record")
    chosen = parser.parse_args(arguments)
    shown = sys.argv[1:] if arguments is None else arguments
    with tempfile.TemporaryDirectory() as name:
        bundles = write_bundles(Path(name))
        started = time.monotonic()
        told = tell(bundles, chosen.steps, chosen.seed)
        seconds = time.monotonic() - started
        found = [bool(tell(bundles, chosen.steps, chosen.seed, broken).problems) for broken in BROKEN.values()]
    record = {
        "what": "promises of a registry that random clients broke, which die, lose answers and repeat themselves",
        "command": command_line(Path(__file__).name, shown, "registry").strip(),
        "machine": describe_machine(),
        "steps": told.steps,
        "operations": told.operations,
        "crashes": told.crashes,
        "lost": len(told.problems),
        "problems": told.problems,
        "seeds": {"first": told.seeds[0], "last": told.seeds[-1]},
        "seconds": seconds,
        "controls": len(found),
        "controls_found": sum(found),
    }
    deliver(record, chosen.out.parent if chosen.out else None, chosen.out.stem if chosen.out else "")
    return 1 if told.problems or not all(found) else 0


if __name__ == "__main__":
    sys.exit(guarded(main))
