"""The memory passes between the matrix products of a step: plain tensor operations, and the same fused in C.

`ops_for(x)` gives the implementation for tensors like x: `native` for bf16 on a CPU where GCC is at hand,
else `plain`, which is also what the native one is tested against.
"""

from __future__ import annotations

import torch

from phinetune.model.ops import native, plain
from phinetune.model.ops.native import NativeOps

Ops = NativeOps | plain.PlainOps


def ops_for(x: torch.Tensor) -> Ops:
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and (compiled := native.load()) is not None:
        return compiled
    return plain.PLAIN


__all__ = ["Ops", "ops_for"]
