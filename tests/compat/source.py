"""Compare the ledger with vLLM's sources, version by version, without importing them.

    python tests/compat/sdist.py 0.26.0 0.33.0 --out build/compat
    python tests/compat/source.py build/compat/vllm-*.tar.gz --out docs/benchmarks/engine/vllm_versions.json

Checks by the text what `eul_serve.engine.ledger.require` checks in the installed vLLM. Ends with status 1 where a
version lacks something.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from sdist import unpack, version_of
from tree import Source

from eul_serve.engine.ledger import LEDGER, HookPoint


def examine(source: Source, point: HookPoint) -> list[str]:
    """Return what a version lacks of an entry, under the name that it has there."""
    target = next((target for target in point.spellings() if source.has(target)), None)
    if target is None:
        return [f"{point.target}: expected this name, found none"]
    lacks = [f"{point.target}: {name}" for name in point.reads if not source.has_attribute(target, name)]
    parameters = source.parameters(target)
    if parameters is not None and point.use == "overridden" and parameters != point.takes:
        lacks.append(f"{point.target}: ({', '.join(parameters)})")
    if parameters is not None and not set(point.takes) <= set(parameters):
        lacks.append(f"{point.target}: ({', '.join(parameters)})")
    name = target.rpartition(":")[2].rpartition(".")[2]
    return lacks + [f"{point.target}: not used by {user}" for user in point.used_by if name not in source.names(user)]


def oldest(sources: dict[str, Source], point: HookPoint) -> str | None:
    """Return the oldest version that has an entry under its newest name."""
    return next((version for version, source in sources.items() if source.has(point.target)), None)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Compare the ledger with vLLM's sources, version by version, without importing them.",
        epilog="Ends with status 1 where a version lacks something.",
    )
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="source archives of vLLM, or their folders"
    )
    parser.add_argument("--work", type=Path, default=Path("build/compat"), help="where to unpack (build/compat)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    roots = [unpack(source, options.work, ("vllm",)) for source in options.sources]
    roots.sort(key=lambda root: tuple(map(int, version_of(root).split("."))))
    sources = {version_of(root): Source(root) for root in roots}
    record = {
        "command": "python tests/compat/source.py vllm-*.tar.gz --out FILE",
        "entries": len(LEDGER),
        "versions": {
            version: [lack for point in LEDGER for lack in examine(source, point)]
            for version, source in sources.items()
        },
        "since": {point.target: oldest(sources, point) for point in LEDGER},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for version, lacks in record["versions"].items():
        sys.stdout.write(f"{version}: {'all there' if not lacks else '; '.join(lacks)}\n")
    return int(any(record["versions"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
