"""Compile for GPUs, without one, what our kernels launch: `python -m ...compile_kernels` prints what each takes."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from eul_serve.engine.kernels import triton_fused, triton_split
from eul_serve.engine.kernels.tiles import Tiles

CPU = torch.device("cpu")
# Kernel, rows, width, highest rank, rows of a tile, dtype; compute capabilities.
SHAPES = {
    ("fused", 4096, 576, 64, 64, torch.bfloat16): (80, 90),
    ("split", 64, 4096, 480, 16, torch.bfloat16): (80, 90),
    ("split", 4096, 4096, 480, 64, torch.float16): (90,),
    ("split", 64, 576, 16, 16, torch.float32): (80,),
}
POINTERS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip
OPTIONS = ("num_warps", "num_stages")


class Recorder:
    """Stands in for a kernel, and keeps the arguments of its launches."""

    def __init__(self, kernel: Any, launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: object) -> Recorder:
        return self

    def __call__(self, *args: object, **settings: object) -> None:
        self.launches.append((self.kernel, args, settings))


def compile_launch(kernel: Any, args: tuple[Any, ...], settings: dict[str, Any], target: int) -> dict[str, Any]:
    """Compile a launch as Triton would on a GPU, where tensors and most sizes are multiples of 16."""
    constants = {name: value for name, value in settings.items() if name not in OPTIONS}
    signature, attributes = dict.fromkeys(kernel.arg_names, "constexpr"), {}
    for place, (parameter, value) in enumerate(zip(kernel.params, args, strict=False)):
        tensor = isinstance(value, torch.Tensor)
        signature[parameter.name] = POINTERS[value.dtype] if tensor else "i32"
        if tensor or (value % 16 == 0 and not parameter.do_not_specialize):
            attributes[(place,)] = [["tt.divisibility", 16]]
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", target, 32),
        options={name: settings[name] for name in OPTIONS},
    )
    return {"shared": compiled.metadata.shared, **usage(compiled.asm["cubin"])}


def usage(cubin: bytes) -> dict[str, int]:
    """Return registers and bytes of stack of each thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found, text
    return {"registers": int(found[1]), "stack": int(found[2])}


def launch(kernel: str, rows: int, width: int, rank: int, block_rows: int, dtype: torch.dtype) -> None:
    """Call a kernel's function with tensors of a shape."""
    tiles, output = Tiles(2, rows, block_rows, CPU), torch.zeros(rows, width, dtype=dtype)
    weights = torch.zeros(2, rank, width, dtype=dtype)
    numbers = torch.zeros(2, dtype=torch.int64)
    args = (output, weights, torch.zeros(2, rank, dtype=dtype), weights, numbers, numbers, tiles)
    if kernel == "fused":
        triton_fused.add_layers(*args)
    else:
        triton_split.add_layers(*args, triton_split.make_scratch(rows, rank, CPU))


if __name__ == "__main__":
    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    for module, name in ((triton_fused, "_fused"), (triton_split, "_shrink"), (triton_split, "_expand")):
        setattr(module, name, Recorder(getattr(module, name), launches))
    for shape, targets in SHAPES.items():
        launches.clear()
        launch(*shape)
        for (kernel, args, settings), target in itertools.product(launches, targets):
            taken = compile_launch(kernel, args, settings, target)
            named = {"kernel": kernel.__name__, "shape": [*shape[:5], str(shape[5])], "sm": target, **taken}
            sys.stdout.write(json.dumps(named) + "\n")
