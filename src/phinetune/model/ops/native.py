"""C files such as kernels.c, compiled with the machine's own C compiler when first used, and called through ctypes.

Compiling takes half a second, into a temporary folder that is gone when the process ends. Without a compiler, or
with PHINETUNE_NATIVE=0 in the environment, `load` gives None and the plain operations do the work.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("kernels.c")
_COMPILERS = ("cc", "gcc", "clang")
# Not -ffast-math: it takes numbers that are not finite for granted, and training has to notice them.
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
_WIDEST_HEAD = 512


@functools.cache
def load() -> NativeOps | None:
    """The compiled kernels, or None where they cannot be had."""
    library = compiled(_SOURCE, _FLAGS)
    return NativeOps(library) if library is not None else None


def compiled(source: Path, flags: Sequence[str]) -> ctypes.CDLL | None:
    """The C file compiled and loaded; None without a compiler that takes it, or with PHINETUNE_NATIVE=0."""
    if os.environ.get("PHINETUNE_NATIVE") == "0":
        return None
    if "CC" in os.environ:
        compilers = [shlex.split(os.environ["CC"])]
    else:
        compilers = [[path] for path in map(shutil.which, _COMPILERS) if path is not None]
    with tempfile.TemporaryDirectory(prefix="phinetune-") as folder:
        unit, library = Path(folder, "kernels.o"), Path(folder, "kernels.so")
        for compiler in filter(None, compilers):
            with suppress(OSError, subprocess.SubprocessError):
                # Linked without OpenMP's runtime: the names are found in the one that torch has loaded already. Two
                # runtimes would each keep a set of threads spinning on the same cores.
                _run(*compiler, *flags, "-c", str(source), "-o", str(unit))
                _run(*compiler, "-shared", str(unit), "-o", str(library))
                return ctypes.CDLL(str(library))
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _at(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


class NativeOps:
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

    def fill_blocks(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        fill: torch.Tensor,
        head_dim: int,
    ) -> torch.Tensor:
        assert head_dim <= _WIDEST_HEAD
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        blocks = q.new_empty(fill.shape[0], head_dim, dtype=torch.float32)
        sizes = (fill.shape[0], q.shape[1] // head_dim, k.shape[1] // head_dim, head_dim, cos.shape[1])
        self._c.fill_blocks(*map(_at, (q, k, v, cos, sin, fill, blocks)), *map(ctypes.c_int64, sizes))
        return blocks

    def take_gradients(
        self,
        blocks: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        back: torch.Tensor,
        heads: Sequence[int],
        dtype: torch.dtype,
    ) -> list[torch.Tensor]:
        head_dim, tokens = blocks.shape[1], cos.shape[0]
        taken = [torch.empty(tokens, count * head_dim, dtype=dtype) for count in heads]
        sizes = (tokens, heads[0], heads[1], head_dim, cos.shape[1])
        self._c.take_gradients(*map(_at, (blocks, cos, sin, back, *taken)), *map(ctypes.c_int64, sizes))
        return taken

    def take_rows(self, blocks: torch.Tensor, places: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        taken = torch.empty(places.shape[0], blocks.shape[1], dtype=dtype)
        self._c.take_rows(*map(_at, (blocks, places, taken)), *map(ctypes.c_int64, taken.shape))
        return taken

    def fill_rows(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        rows = rows.contiguous()
        filled = rows.new_empty(places.shape[0], rows.shape[1], dtype=torch.float32)
        sizes = (places.shape[0], rows.shape[0], rows.shape[1])
        self._c.fill_rows(*map(_at, (rows, places, filled)), *map(ctypes.c_int64, sizes))
        return filled
