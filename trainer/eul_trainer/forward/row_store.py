"""Numbers kept for every row over all epochs: in memory up to a bound, else in a file that no kill leaves behind."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence

import numpy as np
import torch

from eul_serve.errors import CapacityError

MIB = 1024 * 1024
_ZEROS = bytes(MIB)


class RowStore:
    """Tensors (n_i, width) by the number of their row i, whose sizes n_i are known beforehand."""

    def __init__(self, sizes: Sequence[int], width: int, dtype: torch.dtype, *, bound: int) -> None:
        """Make room.

        Args:
            sizes: Length of each row's tensor.
            width: Their width.
            dtype: Their dtype.
            bound: Bytes that may be held in memory; what is larger goes to a file in the temporary directory.

        Raises:
            CapacityError: The disk is full.
        """
        self._ends = np.cumsum([0, *sizes]).tolist()
        count = self._ends[-1] * width
        size = count * dtype.itemsize
        self.spilled = size > bound
        """Whether the numbers are in a file."""
        flat = _mapped(size).view(dtype) if self.spilled else torch.empty(count, dtype=dtype)
        self._rows = flat.view(-1, width)

    def put(self, row: int, values: torch.Tensor) -> None:
        """Keep a row's tensor."""
        self._rows[self._ends[row] : self._ends[row + 1]] = values

    def get(self, rows: Sequence[int]) -> torch.Tensor:
        """Return the tensors of rows, one after the other."""
        parts = [self._rows[self._ends[row] : self._ends[row + 1]] for row in rows]
        return torch.cat(parts) if parts else self._rows[:0]


def _mapped(size: int) -> torch.Tensor:
    """Return bytes of a file that has no name any more: the system frees it when the process ends, however it ends."""
    try:
        with tempfile.TemporaryFile() as file:
            _allocate(file.fileno(), size)
            return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,)))
    except OSError as error:
        raise CapacityError(
            f"cached states: cannot write {size // MIB + 1} MiB to {tempfile.gettempdir()!r}: {error.strerror}; "
            "set TMPDIR to a disk with room, or raise --cache-memory"
        ) from error


def _allocate(descriptor: int, size: int) -> None:
    """Take a file's room on the disk now: a hole that cannot be filled later would end the process without a word."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", None) not in (None, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        for first in range(0, size, MIB):
            os.write(descriptor, _ZEROS[: size - first])
