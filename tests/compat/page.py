"""The page of the reference that shows the ledger.

python tests/compat/page.py > docs/reference/vllm.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from eul_serve.engine.ledger import FRONT, VERSIONS, HookPoint
from eul_serve.engine.ledger.layers import LAYERS
from eul_serve.engine.ledger.model_manager import MODEL_MANAGER
from eul_serve.engine.ledger.settings import SETTINGS
from eul_serve.engine.ledger.worker_manager import WORKER_MANAGER

RECORD = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "engine" / "vllm_versions.json"
TABLES = {
    "The adapter manager of a worker": WORKER_MANAGER,
    "The adapter manager of a model": MODEL_MANAGER,
    "Layers": LAYERS,
    "Settings and the prefix cache": SETTINGS,
    "The front end of `eul serve`": FRONT,
}
HEAD = f"""# What we rely on inside vLLM

Bundles ride on vLLM's adapter machinery, which is not a public interface. This is every name of it that we replace,
override, call or read, and every one of the front end, with the reason, and with what would let the entry go. It is
written for vLLM {VERSIONS[0]} to {VERSIONS[1]}. The page is made from the data in `eul_serve/engine/ledger`; beside it,
`compat.py` is the only file that imports vLLM.

**At start.** `eul serve` compares all of it with the installed vLLM before it loads a model: that each name is there,
that it takes the parameters that we give or are given, that objects have the attributes that we read, and that vLLM's
own functions use what we put in place. The plugin does the same in every process of vLLM, without the front end. It
takes milliseconds. Where something moved, one line names it with the installed version and those that fit, and nothing
is served: `eul serve` ends with status 7, and vLLM's own server ends too, as an engine that went on would answer from
the base model. `EUL_PLUGIN=0` lets vLLM run by itself.

**In tests.** `tests/eul_serve/engine/test_engine_ledger.py` renames each name, parameter and attribute in turn and sees
that entry reported, and no other. What stands behind a name is tested by the test that its entry names.

**In other versions.** `make compat` fetches vLLM's sources and compares them, and runs vLLM's own LoRA tests with and
without the plugin; see [the benchmarks](../benchmarks/README.md#vllms-inside).
"""


def render() -> str:
    """Return the page."""
    parts = [HEAD, versions(json.loads(RECORD.read_text())["versions"])]
    parts += [f"## {title}\n\n" + "\n".join(entry(point) for point in points) for title, points in TABLES.items()]
    return "\n".join(parts)


def versions(found: dict[str, list[str]]) -> str:
    whole = [version for version, lacks in found.items() if not lacks]
    return f"Every entry is there, under its name of the time, in the sources of {', '.join(whole)}.\n"


def entry(point: HookPoint) -> str:
    lines = [f"### `{point.target}`\n", f"{point.use.capitalize()}. {point.why} {point.how}\n"]
    if point.takes:
        lines.append(f"- Parameters: {listed(point.takes)}")
    if point.reads:
        lines.append(f"- Attributes: {listed(point.reads)}")
    if point.used_by:
        lines.append(f"- Used by: {listed(point.used_by)}")
    lines.append(f"- Since: {point.since}" + (f", before that `{point.older}`" if point.older else ""))
    lines += [f"- Goes when: {point.goes}", f"- Test: `{point.test}`", ""]
    return "\n".join(lines)


def listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(render())
