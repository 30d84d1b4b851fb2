"""Run cases in Triton's interpreter: `python -m ...interpret CASES.json FOUND.safetensors`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import safetensors.torch
import torch
import triton.language as tl
from triton.backends import backends
from triton.runtime import interpreter

from tests.eul_serve.engine.kernels.kernel_cases import read_cases, run


def mend_bfloat16() -> None:
    """Let the interpreter multiply bfloat16 numbers. Triton 3.9 keeps them as integers and multiplies those."""
    multiply = interpreter.InterpreterBuilder.create_dot

    def widen(operand: Any) -> Any:
        if operand.dtype != tl.bfloat16:
            return operand
        return interpreter.TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        return multiply(self, widen(a), widen(b), *others)

    interpreter.InterpreterBuilder.create_dot = create_dot


def patch_once() -> None:
    """Let the interpreter put its operators in the place of the language's once, not at each call of a function."""
    patch = interpreter._patch_lang
    done: set[bool] = set()

    def patch_lang(function: Any) -> Any:
        whole = any(value is tl for value in function.__globals__.values())
        if whole not in done:
            patch(function)
            done.add(whole)
        return interpreter._LangPatchScope()

    interpreter._patch_lang = patch_lang


def keep_triton() -> None:
    """Keep vLLM's build for CPUs from replacing Triton, which has no backend for CPUs, with an empty module."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    backends["cpu"] = SimpleNamespace(driver=None)


if __name__ == "__main__":
    mend_bfloat16()
    patch_once()
    keep_triton()
    listed, found = map(Path, sys.argv[1:])
    results = {case.name: run(case, torch.device("cpu")) for case in read_cases(listed)}
    safetensors.torch.save_file(results, found)
