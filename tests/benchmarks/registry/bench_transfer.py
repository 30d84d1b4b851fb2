"""Publish and pull bundles of several sizes, on each store, against what an operator would type instead.

    python tests/benchmarks/registry/bench_transfer.py [--stores directory oci s3] [--sizes 5 100 2000] [--rounds 5] \
        [--place build/bench/registry] [--out docs/benchmarks/registry]

In every round each side publishes the same bundle to a new, empty place and pulls it back, in a shuffled order, and
ratios are taken within the round. Before anything is timed, all that waits to be written is written (`sync`), so that
no side writes for another; the bundle's files are in the page cache for all. What counts, for both sides of a store:

    directory  every file and its directory are on the disk (fsync), and every digest was held against the bytes of
               the copy. Peers: `cp`, `sync FILES DIRECTORY`, then `sha256sum --check`, or `openssl dgst -sha256`, which
               hashes as fast as we do where coreutils does not use the processor's instructions for it
    oci        what was pulled is on the disk. Peer: `oras push` and `oras pull` with the same program, docker-registry,
               then `sync` of what was pulled
    s3         likewise. Peer: s3fs, `put_file` and `get_file` of each file in turn with the same server, SeaweedFS

Ours also claims, logs, makes the revision's record and moves an alias, each of which waits for the disk. `publish`
takes a bundle that was read, and what was pulled is read with every check afterwards: `check_seconds` is that, which
looks at every value and has no counterpart on the other side. A second publication of the same bundle must bring no
byte of a blob to the store. Our side and s3fs run in this process; the others start processes within their time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share

import click
from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, deliver, read_json, rounded
from moving.bundle import make_bundle
from moving.rounds import Round, one_round, summed
from moving.sides import PEERS, sides

from eul_serve.errors import CapacityError

MB = 10**6
COPIES = 7
"""Of a bundle, at most, at one time: its own, each side's, and what each side pulled."""
ROOT = Path(__file__).resolve().parents[3]


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 100, 2000], help="of bundles, in MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--place", type=Path, default=ROOT / "build/bench/registry", help="where files are moved")
    parser.add_argument("--note", default=None, help="what else the machine does meanwhile, for the record")
    parser.add_argument("--out", type=Path, default=None, help="directory for transfer.json; other stores in it stay")
    return parser.parse_args(arguments)


def measure(chosen: argparse.Namespace, store: str, size: int) -> dict[str, Any]:
    """Return what the rounds with one store and one size say."""
    place = chosen.place.resolve() / f"{store}-{size}"
    shutil.rmtree(place, ignore_errors=True)
    _check_room(place.parent, COPIES * size * MB)
    try:
        bundle = make_bundle(place / "bundle", size * MB, seed=size)
        rounds: list[Round] = []
        for number in range(chosen.rounds):
            root = place / f"round-{number}"
            with sides(store, bundle, root) as movers:
                rounds.append(one_round(bundle, movers, root / "pulled"))
            shutil.rmtree(root)
        return summed(rounds, sum(path.stat().st_size for path in bundle.path.iterdir()))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _check_room(place: Path, needed: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if free < needed:
        raise CapacityError(
            f"place {str(place)!r}: {free // MB} MB are free, {needed // MB} needed; give another --place"
        )


def file_system(place: Path) -> str:
    """Return what kind of file system a directory is on, as `stat` names it."""
    words = ["stat", "--file-system", "--format", "%T", str(place)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    shown = sys.argv[1:] if arguments is None else arguments
    record = {
        "what": "publish and pull against what an operator would type instead; ratios of speeds, more is better",
        "stores": read_json(chosen.out / "transfer.json").get("stores", {}) if chosen.out else {},
    }
    for store in chosen.stores:
        load, sizes = os.getloadavg()[0], dict[str, Any]()
        for size in chosen.sizes:
            sizes[f"{size} MB"] = one = measure(chosen, store, size)
            click.echo(f"{store}, {size} MB: {json.dumps(rounded(one))}", err=True)
        record["stores"][store] = {
            "command": command_line(Path(__file__).name, shown, "registry").strip(),
            "machine": {
                **describe_machine(),
                "file_system": file_system(chosen.place),
                "load_before": load,
                "note": chosen.note,
            },
            "rounds": chosen.rounds,
            "peers": PEERS[store],
            "sizes": sizes,
        }
    deliver(record, chosen.out, "transfer")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
