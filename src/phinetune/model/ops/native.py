"""kernels.c and attention.c, compiled when first used and called through ctypes.

Compiling takes a second. Where it cannot be done (compiler.py), `load` gives None and the plain operations do the work.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from phinetune.model.compiler import compiled
from phinetune.model.ops.plain import PlainOps

_SOURCES = [Path(__file__).with_name(name) for name in ("kernels.c", "attention.c")]
# Not -ffast-math: it takes numbers that are not finite for granted, and training has to notice them.
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")


@functools.cache
def load() -> NativeOps | None:
    """The compiled kernels, or None where they cannot be had."""
    library = compiled(_SOURCES, _FLAGS)
    return NativeOps(library) if library is not None else None


def _at(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


class NativeOps(PlainOps):
    """`PlainOps` for contiguous bf16 tensors on the CPU; what may come in strides is copied first."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._c = library

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous()
        y, scale = torch.empty_like(x), x.new_empty(x.shape[0], 1, dtype=torch.float32)
        size = map(ctypes.c_int64, x.shape)
        self._c.rms_norm(_at(x), _at(weight), ctypes.c_float(eps), _at(y), _at(scale), *size)
        return y, scale

    def rms_norm_backward(
        self, g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        g, x = g.contiguous(), x.contiguous()
        out = torch.empty_like(x)
        size = map(ctypes.c_int64, x.shape)
        self._c.rms_norm_backward(_at(g), _at(x), _at(weight), _at(scale), _at(out), *size)
        return out

    def gated_silu(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        self._c.gated_silu(_at(gate), _at(up), _at(y), ctypes.c_int64(y.numel()))
        return y

    def gated_silu_backward(
        self, g: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        g, gate, up = g.contiguous(), gate.contiguous(), up.contiguous()
        g_gate, g_up = torch.empty_like(gate), torch.empty_like(up)
        operands = map(_at, (g, gate, up, g_gate, g_up))
        self._c.gated_silu_backward(*operands, ctypes.c_int64(g.numel()))
        return g_gate, g_up

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        self._c.gelu(_at(x), _at(y), ctypes.c_int64(x.numel()))
        return y

    def gelu_backward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        g, x = g.contiguous(), x.contiguous()
        out = torch.empty_like(x)
        self._c.gelu_backward(_at(g), _at(x), _at(out), ctypes.c_int64(x.numel()))
        return out

    def softmax_minus_onehot_(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = logits.new_empty(logits.shape[0], dtype=torch.float32)
        size = map(ctypes.c_int64, logits.shape)
        self._c.softmax_minus_onehot(_at(logits), _at(targets.contiguous()), _at(loss), *size)
        return loss.sum()

    def drop(self, x: torch.Tensor, seed: int, threshold: int) -> torch.Tensor:
        """A copy of x without the elements whose hash of (seed, place) lies below the threshold, of 2**32."""
        x = x.contiguous()
        y = torch.empty_like(x)
        self._c.drop(_at(x), _at(y), ctypes.c_uint32(seed), ctypes.c_uint32(threshold), ctypes.c_int64(x.numel()))
        return y

    def add_dropped_(self, total: torch.Tensor, x: torch.Tensor, seed: int, threshold: int) -> torch.Tensor:
        """total + drop(x), in place; both contiguous."""
        self._c.add_dropped(
            _at(total), _at(x), ctypes.c_uint32(seed), ctypes.c_uint32(threshold), ctypes.c_int64(x.numel())
        )
        return total

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        lengths: Sequence[int],
        head_dim: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention within documents of these lengths: the answers, and the sums that the way back needs [T, H]."""
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        answers = torch.empty_like(q)
        log_sums = q.new_empty(q.shape[0], q.shape[1] // head_dim, dtype=torch.float32)
        shape = _shape_of_attention(q, k, cos, lengths, head_dim)
        if not self._c.attend(*map(_at, (q, k, v, cos, sin)), *shape, _at(answers), _at(log_sums)):
            raise MemoryError
        return answers, log_sums

    def attend_backward(
        self,
        g: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        lengths: Sequence[int],
        head_dim: int,
        log_sums: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From the gradient of the answers to those of q, k and v."""
        g, q, k, v = g.contiguous(), q.contiguous(), k.contiguous(), v.contiguous()
        gradients = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        shape = _shape_of_attention(q, k, cos, lengths, head_dim)
        if not self._c.attend_backward(*map(_at, (g, q, k, v, cos, sin)), *shape, _at(log_sums), *map(_at, gradients)):
            raise MemoryError
        return gradients


def _shape_of_attention(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, lengths: Sequence[int], head_dim: int
) -> list[Any]:
    """scaling, heads, kv_heads, d, half, starts, lengths, documents: longest first, so that threads end together."""
    starts = [0, *accumulate(lengths)][:-1]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    numbers = ctypes.c_int64 * len(lengths)
    sizes = (q.shape[1] // head_dim, k.shape[1] // head_dim, head_dim, cos.shape[1])
    places = numbers(*(starts[i] for i in order)), numbers(*(lengths[i] for i in order))
    return [ctypes.c_float(head_dim**-0.5), *map(ctypes.c_int64, sizes), *places, ctypes.c_int64(len(lengths))]
