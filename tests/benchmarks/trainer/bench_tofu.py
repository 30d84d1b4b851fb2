"""TOFU (Maini et al., arXiv:2401.06121): authors to forget, every method, beside a retrained model.

    python tests/benchmarks/trainer/bench_tofu.py --model base --data ../shared/data/tofu --work work [--scale tiny]

Every measurement is kept in --work, so that a killed run goes on when the same line is run again. On a GPU:
`--scale full --device cuda`. Prints JSON and writes tofu.json; summary.py makes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common.entry import guarded
from tables.command import run_table
from tables.scale import TOFU


def main(arguments: Sequence[str] | None = None) -> int:
    return run_table("tofu", __doc__ or "", TOFU, arguments)


if __name__ == "__main__":
    sys.exit(guarded(main))
