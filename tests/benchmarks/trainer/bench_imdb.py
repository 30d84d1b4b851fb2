"""IMDB by film, as in the paper's table 2: label words, every method, beside a retrained model.

    python tests/benchmarks/trainer/bench_imdb.py --model base --data ../shared/data/imdb --work work [--scale tiny]

Every measurement is kept in --work, so that a killed run goes on when the same line is run again. On a GPU:
`--scale full --device cuda`. Prints JSON and writes imdb.json; summary.py makes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common.entry import guarded
from tables.command import run_table
from tables.scale import IMDB


def main(arguments: Sequence[str] | None = None) -> int:
    return run_table("imdb", __doc__ or "", IMDB, arguments)


if __name__ == "__main__":
    sys.exit(guarded(main))
