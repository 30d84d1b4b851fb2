"""Batches for the kernels, made alike in the test's process and in the one that runs Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from eul_serve.engine.slot_table import SlotTable
from eul_serve.engine.slots import Slots
from eul_serve.format.weights import LayerWeights

ROOT = Path(__file__).resolve().parents[4]
# Per dtype: the last place of values up to 16, and a tenth for the rounded hidden units. In float32, sums over up to
# 480 units and 200 columns in another order.
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.07, "float16": 0.0086}


@dataclass(frozen=True)
class Held:
    """A bundle's layer in a slot; `scale` multiplies D and U."""

    slot: int
    rank: int
    activation: str = "relu"
    bias: bool = True
    scale: float = 1.0


@dataclass(frozen=True)
class Case:
    """One batch for one kernel."""

    name: str
    kernel: str
    held: tuple[Held, ...]
    rows: tuple[int, ...]
    """The slot of every row, -1 for none."""
    output_rows: int
    """Rows of the output; those beyond the step's are padding."""
    dtype: str = "float32"
    width: int = 40
    max_rank: int = 16
    slots: int = 4
    block_rows: int = 16

    def layer(self, held: Held) -> LayerWeights:
        """Return the layer of a slot, the same for every batch that holds it."""
        generator = torch.Generator().manual_seed(held.slot)

        def draw(*shape: int, deviation: float) -> torch.Tensor:
            return (torch.randn(*shape, generator=generator) * deviation * held.scale).to(getattr(torch, self.dtype))

        down = draw(held.rank, self.width, deviation=self.width**-0.5)
        up = draw(self.width, held.rank, deviation=held.rank**-0.5)
        return LayerWeights(down, up, draw(held.rank, deviation=0.5) if held.bias else None, held.activation)

    def output(self) -> torch.Tensor:
        """Return y, (output_rows, width); a row's values depend on its number alone."""
        rows = [
            torch.randn(self.width, generator=torch.Generator().manual_seed(row)) for row in range(self.output_rows)
        ]
        return torch.stack(rows).to(getattr(torch, self.dtype))

    def expected(self) -> torch.Tensor:
        """Return the reference's result."""
        layers = {held.slot: self.layer(held) for held in self.held}
        result = self.output()
        for row, slot in enumerate(self.rows[: self.output_rows]):
            if slot in layers:
                result[row] = layers[slot].apply(result[row])
        return result


def run(case: Case, device: torch.device) -> torch.Tensor:
    """Run a case's kernel; needs Triton's interpreter, or a GPU."""
    slots = Slots(case.slots, case.max_rank, case.width, getattr(torch, case.dtype), device)
    table = SlotTable(case.slots, case.max_rank, device)
    for held in case.held:
        slots.put(held.slot, case.layer(held))
        table.take(held.slot, held.rank, held.activation)
    # What a slot's own rank does not cover must not be read: poison it.
    for slot, rank in enumerate(table.ranks):
        for part in (slots.down, slots.up, slots.bias):
            part[slot, rank:] = torch.nan
    output, rows = case.output().to(device), np.array(case.rows, dtype=np.int64)
    if case.kernel == "device":
        _run_device(case, output, slots, table)
    else:
        weights = (slots.down, slots.bias, slots.up, table.device_ranks, table.device_codes)
        _KERNELS[case.kernel](case, output, weights, rows)
    return output.cpu()


def _run_device(case: Case, output: torch.Tensor, slots: Slots, table: SlotTable) -> None:
    """Run what a worker on a GPU runs: a step whose kernels were measured, here with a clock that likes wide tiles."""
    from eul_serve.engine.kernels.device import DeviceKernels
    from eul_serve.engine.step import Step

    kernels = DeviceKernels(table, max(len(case.rows), len(output)), output.device)
    calls = iter(range(100, 0, -1))
    kernels.fastest = kernels.measure(slots, lambda work: float(next(calls)))
    assert set(kernels.fastest.values()) == {kernels.ways()[-1]}, "the last is the fastest by this clock"
    step = Step(table, len(case.rows), output.device, on_device=kernels)
    step.set_rows(case.rows)
    for run_one in step.runs:
        run_one(output, slots)


Weights = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _run_fused(case: Case, output: torch.Tensor, weights: Weights, rows: np.ndarray) -> None:
    from eul_serve.engine.kernels import triton_fused
    from eul_serve.engine.kernels.tiles import Tiles

    tiles = Tiles(case.slots, max(len(rows), len(output)), case.block_rows, output.device)
    tiles.fill(rows)
    triton_fused.add_layers(output, *weights, tiles)


def _run_split(case: Case, output: torch.Tensor, weights: Weights, rows: np.ndarray) -> None:
    from eul_serve.engine.kernels import triton_split
    from eul_serve.engine.kernels.tiles import Tiles

    tiles = Tiles(case.slots, max(len(rows), len(output)), case.block_rows, output.device)
    tiles.fill(rows)
    scratch = triton_split.make_scratch(tiles.max_tokens, case.max_rank, output.device)
    triton_split.add_layers(output, *weights, tiles, scratch.fill_(torch.nan))


def _run_vllm(case: Case, output: torch.Tensor, weights: Weights, rows: np.ndarray) -> None:
    from tests.eul_serve.engine.kernels import vllm_lora_ops

    batch = vllm_lora_ops.LoraBatch(case.slots, max(len(rows), len(output)), output.device)
    batch.fill(rows)
    scratch = vllm_lora_ops.make_scratch(max(len(rows), len(output)), case.max_rank, output.device)
    down, bias, up, ranks, codes = weights
    # vLLM's kernels read the whole rank: what no bundle covers has to be zero.
    down, up = down.nan_to_num(nan=0.0), up.nan_to_num(nan=0.0).transpose(1, 2).contiguous()
    vllm_lora_ops.add_layers(output, down, bias, up, ranks, codes, batch, scratch)


_KERNELS = {"fused": _run_fused, "split": _run_split, "vllm": _run_vllm}


def interpret(cases: Iterable[Case], folder: Path) -> dict[str, torch.Tensor]:
    """Run cases in Triton's interpreter, in a process of its own: Triton reads the variable when it is imported."""
    listed, found = folder / "cases.json", folder / "found.safetensors"
    listed.write_text(json.dumps([asdict(case) for case in cases]))
    start_python("tests.eul_serve.engine.kernels.interpret", str(listed), str(found), TRITON_INTERPRET="1")
    return safetensors.torch.load_file(found)


def start_python(module: str, *arguments: str, **environment: str) -> str:
    """Run a module in a process of its own, and return what it printed."""
    paths = os.pathsep.join([str(ROOT / "trainer"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def read_cases(path: Path) -> list[Case]:
    """Return the cases that `interpret` wrote."""
    return [
        Case(**{**fields, "held": tuple(Held(**held) for held in fields["held"]), "rows": tuple(fields["rows"])})
        for fields in json.loads(path.read_text())
    ]
