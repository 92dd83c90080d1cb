"""The memory passes between the matrix products of a step: plain tensor operations, and the same in few passes.

`ops_for(x)` gives the implementation for tensors like x: `native` for bf16 on a CPU where GCC is at hand, `gpu` for
16-bit numbers on a recent NVIDIA GPU, else `plain`, which is also what the others are tested against.
"""

from __future__ import annotations

import torch

from phinetune.model.ops import gpu, native
from phinetune.model.ops.plain import PLAIN, PlainOps


def ops_for(x: torch.Tensor) -> PlainOps:
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and (compiled := native.load()) is not None:
        return compiled
    if gpu.covers(x) and (kernels := gpu.load()) is not None:
        return kernels
    return PLAIN


__all__ = ["PlainOps", "ops_for"]
