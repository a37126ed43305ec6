"""Asynchronous copies of numbers from a device, and a flag of all processes: no step waits for them."""

import torch
from torch import Tensor


class AsyncCopy:
    """Numbers on their way from a device, `(N,)`."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.to("cpu", non_blocking=True)
        self._event: torch.Event | None = None
        if numbers.device.type != "cpu":
            self._event = torch.Event(numbers.device)
            self._event.record()

    def read(self) -> list[float]:
        """The numbers, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers


def in_any_process(flag: Tensor) -> Tensor:
    """Whether a flag is set in any process, as a number on its device; every process has to ask.

    Lightning's reduce_boolean_decision puts a barrier before it, and waits for the answer.
    """
    number = flag.float()
    torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
    return number
