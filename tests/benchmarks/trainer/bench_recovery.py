"""What stored second moments tell of the forgotten rows: who was in them, and which tokens can be found again.

    python tests/benchmarks/trainer/bench_recovery.py MODEL --tofu ../shared/data/tofu [--authors 4] [--draws 3] \
        [--trained] [--threads 1] [--out docs/benchmarks/trainer/recovery.json]

A request is some rows of one TOFU author; its Grams are formed as `fit` stores them, from the base model and fresh
layers. The attacker has the model, the Grams, another author's rows, and the rows of the author as candidates: half of
them were in the request, half were not. Each row of the result is a mean over requests with a 95 % bootstrap interval:

auc     chance that a row of the request scores above another row of the same author; 0.5 is a coin
found   share of the request's tokens that score above 99 of 100 tokens of the other rows; 0.01 is a coin
read    share of the largest 16 eigenvectors that are a stored token's state up to a cosine of 0.9

With --trained one request, every second row of an author, is trained too: `auc_of_the_layer` is what the layer tells by
itself, through the rise of a row's loss, and `auc_of_the_units` what its stored units tell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common.machine import describe_machine
from common.output import command_line, mean, write_json
from recovering.attack import RIDGES, Distant, Spectrum, Spread, auc, by_row, interval, read_off, scores, share_found
from recovering.states import States, read_states
from recovering.trained import attack_trained

from eul_trainer.data.tofu_files import read_full
from eul_trainer.model.load import load_model
from eul_trainer.moments.gram import LowRankGram
from eul_trainer.moments.statistics import block_diagonal

RANK = 16
PER_COLUMN = (1, 2, 4, 8, 16)
TOKENS = (64, 400)
READ = 16


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tofu", type=Path, required=True)
    parser.add_argument("--authors", type=int, default=4)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--blocks", type=int, nargs="+", default=[0, 6, 12, 18, 24, 29])
    parser.add_argument("--trained", action="store_true", help="also train one request, and attack its layer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    return parser.parse_args(arguments)


class Request:
    """One drawn request: the tokens that went into its Grams, and candidates that did not."""

    def __init__(self, author: States, tokens: int, seed: int) -> None:
        names = author.rows.unique()
        order = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))]
        inside, outside = order[: len(order) // 2], order[len(order) // 2 :]
        places = torch.cat([(author.rows == row).nonzero()[:, 0] for row in inside])[:tokens]
        self.inside = author.of(places)
        self.outside = author.of(torch.isin(author.rows, outside))


class Attack:
    """All requests, attacked in one way."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self.tokens: list[list[float]] = []

    def add(self, inside: torch.Tensor, outside: torch.Tensor, request: Request) -> None:
        members, others = by_row(inside, request.inside.rows), by_row(outside, request.outside.rows)
        self.rows.append([auc(members[ridge], others[ridge]) for ridge in range(len(RIDGES))])
        self.tokens.append([share_found(inside[ridge], outside[ridge]) for ridge in range(len(RIDGES))])

    def result(self) -> dict[str, Any]:
        """Return the figures of the ridge with the largest AUC."""
        best = max(range(len(RIDGES)), key=lambda ridge: mean([row[ridge] for row in self.rows]))
        figures = [row[best] for row in self.rows]
        low, high = interval(figures)
        found = mean([row[best] for row in self.tokens])
        return {"auc": mean(figures), "low": low, "high": high, "found": found, "requests": len(figures)}


def attack_inputs(requests: list[Request], known: States, width: int, low_rank: int = 0) -> dict[str, Any]:
    """Attack Grams of inputs in blocks of a width, or a low-rank form of them."""
    return attack(requests, known, inputs=lambda x: _spectrum(x, width, low_rank))


def _spectrum(states: torch.Tensor, width: int, low_rank: int) -> Spectrum:
    if not low_rank:
        return Spectrum.of(states, width)
    gram = block_diagonal(states.T @ states / len(states), width)
    return Spectrum.of_matrix(LowRankGram.of(gram, low_rank).dense())


def of_units(states: torch.Tensor) -> Spectrum:
    """Return what is stored of the hidden units of a layer."""
    return Spectrum.of(states, RANK)


def attack(requests: list[Request], known: States, **stored: Callable[[torch.Tensor], Distant]) -> dict[str, Any]:
    """Attack what is stored of the inputs, the units, or both.

    Args:
        requests: The requests.
        known: Rows that the attacker has.
        **stored: For `inputs` and `units`, what is stored of a layer's states.

    Returns:
        The figures.
    """
    found = Attack()
    theirs = {part: [of(x) for x in getattr(known, part)] for part, of in stored.items()}
    for request in requests:
        mine = {part: [of(x) for x in getattr(request.inside, part)] for part, of in stored.items()}
        inside, outside = (
            torch.stack([scores(mine[part], theirs[part], getattr(side, part)) for part in stored]).sum(0)
            for side in (request.inside, request.outside)
        )
        found.add(inside, outside, request)
    return found.result()


def read_eigenvectors(requests: list[Request]) -> float:
    """Return the share of the largest eigenvectors of whole Grams that are a stored token's state."""
    found = []
    for request in requests:
        for inside, outside in zip(request.inside.inputs, request.outside.inputs, strict=True):
            vectors = Spectrum.of(inside, inside.shape[1]).parts[0][1][0][:, -READ:]
            member = torch.arange(len(inside) + len(outside)) < len(inside)
            found.append(read_off(vectors, torch.cat([inside, outside]), member))
    return mean(found)


def measure(authors: list[States], known: States, draws: int) -> dict[str, Any]:
    """Return every row of the result."""

    def drawn(tokens: int) -> list[Request]:
        return [Request(author, tokens, seed) for author in authors for seed in range(draws)]

    size = known.inputs[0].shape[1]
    units = [
        {"tokens": RANK * ratio, "per_column": ratio, **attack(drawn(RANK * ratio), known, units=of_units)}
        for ratio in PER_COLUMN
    ]
    _say(units)
    spread = [
        {"tokens": tokens, "units": with_units, **attack(drawn(tokens), known, inputs=Spread.of, **more)}
        for tokens in (16, *TOKENS)
        for with_units, more in ((False, {}), (True, {"units": of_units}))
    ]
    _say(spread)
    inputs, low_rank, read = [], [], []
    for tokens in TOKENS:
        requests = drawn(tokens)
        for ratio in (tokens / size, *PER_COLUMN):
            width = min(size, int(tokens / ratio))
            row = {"tokens": tokens, "per_column": ratio, "width": width, **attack_inputs(requests, known, width)}
            inputs.append(row)
            _say([row])
    for kept in (4, 16):
        width = TOKENS[-1] // 4
        row = {"tokens": TOKENS[-1], "per_column": 4, "width": width, "rank": kept}
        low_rank.append({**row, **attack_inputs(drawn(TOKENS[-1]), known, width, kept)})
        _say(low_rank[-1:])
    for tokens in (4, 16, *TOKENS):
        read.append({"tokens": tokens, "read": read_eigenvectors(drawn(tokens))})
    return {"units": units, "spread": spread, "inputs": inputs, "low_rank": low_rank, "whole_eigenvectors": read}


def _say(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        sys.stderr.write(", ".join(f"{name} {value:.3g}" for name, value in row.items()) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(arguments)
    torch.set_num_threads(given.threads)
    model = load_model(given.model)
    questions = read_full(given.tofu)
    known, *authors = (
        read_states(model, questions.of(author), given.blocks, RANK) for author in range(given.authors + 1)
    )
    record = {
        "command": command_line(Path(__file__).name, sys.argv[1:] if arguments is None else arguments),
        "machine": describe_machine(),
        "model": model.base.fingerprint,
        "rank": RANK,
        "blocks": given.blocks,
        **measure(authors, known, given.draws),
    }
    if given.trained:
        rows = questions.of(1)
        retain = [*questions.of(given.authors + 1), *questions.of(given.authors + 2)]
        record["trained"] = attack_trained(given.model, rows[::2], rows[1::2], retain, questions.of(0))
        _say([record["trained"]])
    if given.out:
        write_json(given.out, record)


if __name__ == "__main__":
    main()
