"""A composite's fine-tune on its way to vLLM's own loader, which reads a directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eul_serve.format.bundle import CONFIG_FILE, WEIGHTS_FILE
from eul_serve.format.composite import FineTune

NO_FINE_TUNES = (
    "a composite (a bundle with a fine-tune beside it), and this engine has no LoRA layers; start the server with "
    "--fine-tunes"
)


@contextmanager
def laid_out(fine_tune: FineTune) -> Iterator[Path]:
    """Lay the checked bytes out as PEFT does, in a directory that nobody else may read or change.

    Args:
        fine_tune: The two files.

    Yields:
        The directory; it is removed at the end.
    """
    with tempfile.TemporaryDirectory(prefix="eul-fine-tune-") as name:
        folder = Path(os.path.realpath(name))
        (folder / CONFIG_FILE).write_bytes(fine_tune.config)
        (folder / WEIGHTS_FILE).write_bytes(fine_tune.weights)
        yield folder
