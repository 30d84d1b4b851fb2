"""Several processes, as `accelerate launch` or `torchrun` starts them, that together take the steps of one.

Every process has the whole model and all rows, and runs its share of each step's rows. A mean over answer tokens is
taken over the tokens of all processes (`objectives/terms.py` asks for the count). So the sum of the gradients is the
gradient that one process would have, whatever the shares are, and every process then takes the same optimiser step.
Process 0 alone writes files and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

from eul_serve.errors import EulError
from eul_trainer.fit.schedule import Draw

if TYPE_CHECKING:
    from accelerate import PartialState

Item = TypeVar("Item")


class Devices:
    """One process alone: it has all rows, and nothing to add up."""

    index = 0
    """This process's number, from 0."""
    count = 1
    """Number of processes."""
    sharded = False
    """Whether the frozen base model is spread over the processes."""

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.index == 0

    def share(self, drawn: Draw) -> Draw:
        """Return the rows of a step that this process runs; pairs of rows stay together."""
        return Draw(
            forget=self.part(drawn.forget),
            retain=self.part(drawn.retain),
            refusal=self.part(drawn.refusal),
            masked=self.part(drawn.masked),
        )

    def part(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Return every n-th item, beginning at this process's number."""
        return tuple(items[self.index :: self.count])

    def total(self, count: int) -> int:
        """Return the sum of a count over the processes."""
        return count

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their sums over the processes, the same in each to the last bit."""

    def add_values(self, values: dict[str, float]) -> dict[str, float]:
        """Return the sums of named numbers over the processes."""
        return values

    def agree(self, value: float) -> float:
        """Return the number that process 0 has."""
        return value

    def any(self, flag: int) -> int:
        """Return the largest of a flag over the processes."""
        return flag

    def check_same(self, value: float, what: str) -> None:
        """Refuse to go on where a number is not the same in every process."""

    def wait(self) -> None:
        """Wait until every process is here."""

    def place(self, device: str) -> str:
        """Return where this process computes; `cuda` alone is shared out by the processes' numbers on the machine."""
        return device

    def close(self) -> None:
        """Leave the other processes."""


SINGLE = Devices()
"""One process alone."""


@contextmanager
def _together() -> Iterator[None]:
    """Say in words that another process is gone; what it said itself is above.

    Yields:
        Nothing.

    Raises:
        EulError: It is gone.
    """
    try:
        yield
    except RuntimeError as error:
        raise EulError(
            f"another process of this run is gone or does not answer: {str(error).splitlines()[0]:.200}; see what it "
            "said, and run the same line again to go on from the last checkpoint"
        ) from error


class Processes(Devices):
    """One of several processes."""

    def __init__(self, state: PartialState) -> None:
        self._state = state
        self.index = state.process_index
        self.count = state.num_processes
        self.device: torch.device = state.device
        self.sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"

    def total(self, count: int) -> int:
        """Return the sum of a count over the processes."""
        found = torch.tensor(count, device=self.device)
        with _together():
            torch.distributed.all_reduce(found)
        return int(found)

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their sums over the processes, in one message."""
        parts = list(tensors)
        flat = torch.cat([part.detach().flatten() for part in parts])
        with _together():
            torch.distributed.all_reduce(flat)
        for part, found in zip(parts, torch.split(flat, [part.numel() for part in parts]), strict=True):
            part.copy_(found.view_as(part))

    def add_values(self, values: dict[str, float]) -> dict[str, float]:
        """Return the sums of named numbers over the processes."""
        found = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        with _together():
            torch.distributed.all_reduce(found)
        return dict(zip(values, found.tolist(), strict=True))

    def agree(self, value: float) -> float:
        """Return the number that process 0 has."""
        found = torch.tensor(value, dtype=torch.float64, device=self.device)
        with _together():
            torch.distributed.broadcast(found, 0)
        return found.item()

    def any(self, flag: int) -> int:
        """Return the largest of a flag over the processes."""
        found = torch.tensor(flag, device=self.device)
        with _together():
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)

    def check_same(self, value: float, what: str) -> None:
        """Refuse to go on where a number is not the same in every process.

        Args:
            value: The number.
            what: What it stands for.

        Raises:
            EulError: It differs.
        """
        first = self.agree(value)
        if self.any(int(first != value)):
            raise EulError(
                f"the {self.count} processes have different {what}; give all of them the same files, and start again"
            )

    def wait(self) -> None:
        """Wait until every process is here."""
        with _together():
            self._state.wait_for_everyone()

    def place(self, device: str) -> str:
        """Return where this process computes."""
        return str(self.device) if device == "cuda" else device

    def close(self) -> None:
        """Leave the other processes."""
        torch.distributed.destroy_process_group()


def gradients(parameters: Iterable[torch.nn.Parameter]) -> list[torch.Tensor]:
    """Return the gradients of parameters, zeros where this process's rows gave none."""
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found


def find_devices(device: str) -> Devices:
    """Return the processes that this one belongs to.

    Args:
        device: Where to compute, as torch names it; on `cpu` the processes speak by gloo.

    Returns:
        This process alone, unless a launcher set WORLD_SIZE.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return SINGLE
    from accelerate import PartialState

    # Else transformers reads the weights in process 0 alone and leaves the others' as memory happened to be.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    return Processes(PartialState(cpu=torch.device(device).type == "cpu"))
