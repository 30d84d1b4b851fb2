"""The rooms that need neither torch, vLLM nor grpc work where none of them is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
CODE = """
import sys

for name in ("torch", "vllm", "grpc", "peft", "transformers", "safetensors"):
    sys.modules[name] = None  # importing it now raises ImportError

import eul_serve.format, eul_serve.policy, eul_serve.registry, eul_serve.swap
from pathlib import Path

print(eul_serve.format.read_bundle(Path(sys.argv[1])).revision)
"""


def test_format_registry_policy_and_swap_need_no_torch() -> None:
    command = [sys.executable, "-W", "error", "-c", CODE, str(GOLDEN)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("sha256:7bc18317")
