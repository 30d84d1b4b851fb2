"""SAMSum by speaker, as in the paper's table 3: summaries, every method, beside a retrained model.

    python tests/benchmarks/trainer/bench_samsum.py --model base --data ../shared/data/samsum --work work [--scale tiny]

Every measurement is kept in --work, so that a killed run goes on when the same line is run again. On a GPU:
`--scale full --device cuda`. Prints JSON and writes samsum.json; summary.py makes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common.entry import guarded
from tables.command import run_table
from tables.scale import SAMSUM


def main(arguments: Sequence[str] | None = None) -> int:
    return run_table("samsum", __doc__ or "", SAMSUM, arguments)


if __name__ == "__main__":
    sys.exit(guarded(main))
