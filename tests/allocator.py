"""An allocator that runs out when a test says so, in the middle of real computing, forth or back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def run_out() -> None:
    """Torch's own error: its allocator is asked for what no machine has."""
    torch.empty(1 << 60, dtype=torch.uint8)


class FailingAllocator(TorchDispatchMode):
    """Sees every operation of torch while it is entered, those of the backward pass too.

    `fail_in`: the matrix product to fail at, counted from when it is set; 0: none. `largest_row`: tokens that fit.
    """

    def __init__(self, error: Callable[[], object] = run_out, largest_row: int | None = None) -> None:
        super().__init__()
        self.fail_in, self.largest_row, self.failures = 0, largest_row, 0
        self._error = error

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm") and self.fail_in:
            self.fail_in -= 1
            if self.fail_in == 0:
                self._fail()
        if name == "embedding" and self.largest_row is not None and args[1].numel() > self.largest_row:
            self._fail()
        return func(*args, **(kwargs or {}))

    def _fail(self) -> None:
        self.failures += 1
        self._error()
