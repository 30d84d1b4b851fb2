"""Run vLLM's own LoRA tests without and with our plugin, and compare them test by test.

    python tests/compat/sdist.py 0.32.0 --out build/compat
    python tests/compat/run_vllm_lora_tests.py build/compat/vllm-0.32.0.tar.gz \\
        --out docs/benchmarks/engine/vllm_lora_tests.json

The tests come from the archive and stay there; vLLM itself is the installed one, which must be of the same version. A
test that passes without the plugin and not with it is a fault of ours, and ends the run with status 1. Half an hour on
one core; all cases of the long files take hours.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from sdist import unpack, version_of
from stand_ins import make_hub

HERE = Path(__file__).resolve().parent
MODES = {
    "stock": "our plugin is off",
    "plugin": "vLLM has loaded our plugin, as in every process where the package is installed",
    "ours": "besides, the names of vLLM's two LRU managers lead to our classes, for the files that test those",
}
FILES = (
    "layers_utils", "lora_checkpoints", "lora_functions", "lora_huggingface", "lora_manager", "lora_utils",
    "lora_weights", "moe_lora_ep_load", "peft_helper", "resolver", "utils", "worker",
)  # fmt: skip
LONG = ("layers", "fused_moe_lora_kernel", "moe_lora_align_sum", "punica_ops", "punica_ops_fp8")
"""Files with up to thousands of cases, of which a few of each test are run; all but the first test kernels for GPUs."""
LEFT_OUT = {
    "several GPUs and models of the hub": (
        "chatglm3_tp", "deepseekv2_tp", "gemma4_tp", "gptoss_tp", "llama_tp", "minicpmv_tp", "olmoe_tp",
        "qwen36_moe_lora", "qwen3_with_multi_loras", "qwen3moe_tp",
    ),
    "models of the hub": (
        "add_lora", "default_mm_loras", "mixtral", "quant_model", "qwen35_densemodel_lora", "qwen3_unembed", "qwenvl",
        "sequence_classification", "transformers_model", "whisper",
    ),
    "an XPU": ("punica_xpu_ops",),
}  # fmt: skip
CAUSES = (
    ("a linear layer as vLLM's loader prepares it for a CPU", r"no attribute 'cpu_linear'"),
    ("a model or adapter of the hub", r"OfflineMode|LocalEntryNotFound"),
    ("a GPU", r"[Tt]riton|_moe_C|Accelerator expected|Unsupported device type: cpu|'function' object is not subscr"),
)
"""What a test needs that does not pass in stock vLLM here, by what its failure says; the first that fits."""


def main() -> int:
    options = parse()
    work = options.work.resolve()
    version = version_of(options.source)
    check_version(version)
    root = prepare(options.source.resolve(), work, version)
    ours = [name for name in options.only if "LRUCache" in (root / file_of(name)).read_text()]
    outcomes = {mode: run(mode, root, work, ours if mode == "ours" else options.only, options.cases) for mode in MODES}
    record = describe(version, outcomes, options.cases)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    for fault in record["faults"]:
        sys.stdout.write(f"passes without the plugin, not with it: {fault}\n")
    sys.stdout.write(f"{json.dumps(record['totals'])}; faults: {len(record['faults'])}\n")
    return 1 if record["faults"] else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run vLLM's own LoRA tests without and with our plugin, and compare them test by test.",
        epilog="Ends with status 1 where a test passes without the plugin and not with it.",
    )
    parser.add_argument("source", type=Path, help="vLLM's source archive, or a folder that holds its tests/")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--work", type=Path, default=Path("build/compat"), help="folder for what is made (build/compat)"
    )
    parser.add_argument("--cases", type=int, default=3, help="cases of each test in the long files (3); 0 is all")
    parser.add_argument("--only", nargs="*", default=FILES + LONG, metavar="NAME", help="files, e.g. lora_manager")
    return parser.parse_args()


def check_version(version: str) -> None:
    import vllm

    if not vllm.__version__.startswith(version):
        raise SystemExit(f"vLLM {vllm.__version__} is installed, and the tests are those of {version}: take the same")


def prepare(source: Path, work: Path, version: str) -> Path:
    """Return a folder with the tests alone, so that they import the installed vLLM, and make what they need beside."""
    make_hub(work / "hub")
    if not (work / "packages").exists():
        uv = Path(sys.executable).parent / "uv"
        command = [str(uv), "pip", "install", "--quiet", "--no-deps", "--target", str(work / "packages"), "tblib"]
        subprocess.run(command, check=True)
    root = work / f"tests-{version}"
    root.mkdir(exist_ok=True)
    if not (root / "tests").exists():
        (root / "tests").symlink_to(unpack(source, work, ("tests",)) / "tests")
    return root


def file_of(name: str) -> str:
    return f"tests/lora/test_{name}.py"


def run(mode: str, root: Path, work: Path, files: list[str], cases: int) -> dict[str, dict[str, str]]:
    """Run files of tests in one process, and return the outcomes by test."""
    out = work / f"outcomes-{mode}.jsonl"
    out.unlink(missing_ok=True)
    limits = {file_of(name): cases for name in LONG if cases}
    environment = {
        **os.environ, "EUL_COMPAT_MODE": mode, "EUL_COMPAT_OUT": str(out), "EUL_COMPAT_LIMITS": json.dumps(limits),
        "EUL_PLUGIN": "0" if mode == "stock" else "1", "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(work / "hub"),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(work / "packages"), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "live"]
    command += ["--continue-on-collection-errors", *map(file_of, files)]
    with open(work / f"log-{mode}.txt", "w") as log:
        subprocess.run(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    return {row["test"]: row for row in map(json.loads, out.read_text().splitlines())}


def describe(version: str, outcomes: dict[str, dict[str, Any]], cases: int) -> dict[str, Any]:
    """Return what is kept: counts by file, tests that differ, and what the others would have needed."""
    stock = outcomes["stock"]
    table = {
        test: {mode: rows[test]["outcome"] for mode, rows in outcomes.items() if test in rows}
        for test in sorted(set().union(*outcomes.values()))
    }
    files: dict[str, Any] = {}
    for test, row in table.items():
        file = files.setdefault(
            test.split("::")[0], {mode: Counter() for mode in outcomes} | {"not_passed_for": Counter()}
        )
        for mode, outcome in row.items():
            file[mode][outcome] += 1
        if row.get("stock") != "passed":
            file["not_passed_for"][cause(stock.get(test, {}))] += 1
    return {
        "command": "python tests/compat/run_vllm_lora_tests.py vllm-VERSION.tar.gz --out FILE",
        "vllm": version,
        "modes": MODES,
        "totals": {mode: Counter(row["outcome"] for row in rows.values()) for mode, rows in outcomes.items()},
        "faults": [
            test for test, row in table.items() if row.get("stock") == "passed" and set(row.values()) != {"passed"}
        ],
        "differ": {test: row for test, row in table.items() if len(set(row.values())) > 1},
        "files": files,
        "sampled": {file_of(name): f"{cases} cases of each test" for name in LONG if cases},
        "left_out": {file_of(name): f"needs {need}" for need, names in LEFT_OUT.items() for name in names},
    }


def cause(row: dict[str, str]) -> str:
    if row.get("outcome") == "skipped":
        return "vLLM's own test skips it here"
    return next(
        (f"needs {need}" for need, pattern in CAUSES if re.search(pattern, row.get("text", ""))), "fails in stock"
    )


if __name__ == "__main__":
    raise SystemExit(main())
