"""The memory passes of an NVIDIA GPU by Triton, which PyTorch brings along on Linux.

`load` gives None where they do not run (no Triton, no C compiler for its launchers, a GPU before compute capability
8.0); then the plain operations do the work.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from phinetune.model.ops.plain import PlainOps

try:
    from phinetune.model.ops import gpu_attention_kernels, gpu_kernels
except ImportError:  # torch for a CPU alone, and for Windows, comes without Triton
    gpu_attention_kernels = gpu_kernels = None  # type: ignore[assignment]

_ELEMENTS = 4096  # of a program that goes through a tensor element by element
_WORDS = 4096  # of a row of logits at a time
_WIDEST_ROW = 16384  # numbers of a row that is normalised in one go
HIGHEST_RANK = 256  # of the adapters of a group together
# Attention of a document of so many tokens is one tile. For 128 pairs of 35 tokens on an H200, forth and back, 32 heads
# of 80: 150 µs, where flash took 420. Eight warps a program instead of four: 230.
_TILE, _WARPS = 64, 4
WIDEST_IN_A_TILE = 128  # numbers of a head
_LOG2_E = 1.4426950408889634


@functools.cache
def load() -> GpuOps | None:
    """The kernels, once they have computed something here; None where they cannot."""
    if gpu_kernels is None or not torch.cuda.is_available() or torch.version.hip is not None:
        return None
    if torch.cuda.get_device_capability() < (8, 0):
        return None
    try:
        ops = GpuOps()
        x = torch.ones(16, 16, device="cuda", dtype=torch.bfloat16)
        works = float(ops.low_product(x, x, 0, 0).sum()) == 16**3
    except Exception:  # whatever Triton, its compiler or the driver raise: all of it means that this way is closed
        return None
    return ops if works else None


class GpuOps(PlainOps):
    """`PlainOps` for 16-bit tensors on a GPU, and the thin products of LoRA with what goes before and behind them.

    A threshold of 0 drops nothing. What may come in strides is copied first. `salt`: a number on the GPU that decides,
    with the seed, what is dropped; 0 unless a recorded graph is replayed.
    """

    def __init__(self) -> None:
        self._kernels: Any = gpu_kernels
        self._attention: Any = gpu_attention_kernels
        is_there = torch.cuda.is_available()
        self._processors = torch.cuda.get_device_properties(0).multi_processor_count if is_there else 1
        self.salt = torch.zeros(1, dtype=torch.int32, device="cuda" if is_there else "cpu")

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous()
        rows, width = x.shape
        if width > _WIDEST_ROW:
            return super().rms_norm(x, weight, eps)
        y, scale = torch.empty_like(x), x.new_empty(rows, 1, dtype=torch.float32)
        self._kernels.rms_norm[(rows,)](x, weight, y, scale, eps, WIDTH=width, BLOCK=_power_of_2(width))
        return y, scale

    def rms_norm_backward(
        self, g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        g, x = g.contiguous(), x.contiguous()
        rows, width = x.shape
        if width > _WIDEST_ROW:
            return super().rms_norm_backward(g, x, weight, scale)
        out = torch.empty_like(x)
        self._kernels.rms_norm_backward[(rows,)](g, x, weight, scale, out, WIDTH=width, BLOCK=_power_of_2(width))
        return out

    def gated_silu(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        self._kernels.gated_silu[_programs(y)](gate, up, y, y.numel(), BLOCK=_ELEMENTS)
        return y

    def gated_silu_backward(
        self, g: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        g, gate, up = g.contiguous(), gate.contiguous(), up.contiguous()
        g_gate, g_up = torch.empty_like(gate), torch.empty_like(up)
        self._kernels.gated_silu_backward[_programs(g)](g, gate, up, g_gate, g_up, g.numel(), BLOCK=_ELEMENTS)
        return g_gate, g_up

    def softmax_minus_onehot_(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """logits [A, V], rows in one piece, become softmax - onehot(targets [A]); the summed loss is returned.

        A target below 0 is none: its row becomes 0, and its loss is.
        """
        rows, words = logits.shape
        losses = logits.new_empty(rows, dtype=torch.float32)
        self._kernels.softmax_minus_onehot[(rows,)](
            logits, targets.contiguous(), losses, logits.stride(0), WORDS=words, BLOCK=_WORDS
        )
        return losses.sum()

    def rotate(self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, back: bool = False) -> torch.Tensor:
        """As PlainOps.rotate: heads [T, h, d] turned by cos and sin [T, d'/2], or turned back."""
        heads = heads.contiguous()
        tokens, count, width = heads.shape
        half, turned = cos.shape[1], torch.empty_like(heads)
        self._kernels.rotate[(tokens,)](
            heads,
            turned,
            cos,
            sin,
            SIGN=-1 if back else 1,
            HEADS=count,
            ALL_HEADS=_power_of_2(count),
            WIDTH=width,
            HALF=half,
            ALL_HALF=_power_of_2(half),
            REST=_power_of_2(width - 2 * half) if width > 2 * half else 0,
        )
        return turned

    def drop(self, x: torch.Tensor, seed: int, threshold: int) -> torch.Tensor:
        """A copy of x without the elements whose hash of (seed, place) lies below the threshold, of 2**32."""
        x = x.contiguous()
        y = torch.empty_like(x)
        self._kernels.drop[_programs(x)](x, y, _signed(seed), self.salt, _signed(threshold), x.numel(), BLOCK=_ELEMENTS)
        return y

    def add_dropped_(self, total: torch.Tensor, x: torch.Tensor, seed: int, threshold: int) -> torch.Tensor:
        """total + drop(x), in place; both contiguous."""
        self._kernels.add_dropped[_programs(x)](
            total, x, _signed(seed), self.salt, _signed(threshold), x.numel(), BLOCK=_ELEMENTS
        )
        return total

    def low_product(self, x: torch.Tensor, down: torch.Tensor, seed: int, threshold: int) -> torch.Tensor:
        """drop(x [T, n]) downᵀ [n, R] -> [T, R]."""
        (rows, width), rank = x.shape, down.shape[0]
        low, ranks = x.new_empty(rows, rank), max(16, _power_of_2(rank))
        tile, columns = (16, 256) if ranks < 64 else (32, 128) if ranks < 128 else (32, 64)
        self._kernels.low_product[(_cut(rows, tile),)](
            x, down, low, _signed(seed), self.salt, _signed(threshold), rows, width,
            RANK=rank, RANKS=ranks, DROPS=threshold != 0, ROWS=tile, COLUMNS=columns,
        )  # fmt: skip
        return low

    def low_gradient(
        self, g_low: torch.Tensor, z: torch.Tensor, seed: int, threshold: int, *, gelu: bool
    ) -> torch.Tensor:
        """g_low [T, R]ᵀ drop(act(z [T, n])) -> [R, n] in fp32; act is gelu or nothing."""
        (rows, width), rank = z.shape, g_low.shape[1]
        tile, columns = 64, 64 if rank <= 64 else 32
        across = _cut(width, columns)
        # So many parts that every multiprocessor has eight programs, each a few tiles long.
        rows_a_part = max(4 * tile, _cut(_cut(rows, max(1, 8 * self._processors // across)), tile) * tile)
        parts = z.new_empty(_cut(rows, rows_a_part), rank, width, dtype=torch.float32)
        self._kernels.low_gradient[(across, len(parts))](
            g_low, z, parts, _signed(seed), self.salt, _signed(threshold), rows, width, rows_a_part,
            RANK=rank, RANKS=max(16, _power_of_2(rank)), DROPS=threshold != 0, GELU=gelu, ROWS=tile, COLUMNS=columns,
        )  # fmt: skip
        return parts[0] if len(parts) == 1 else parts.sum(0)

    def add_low_back_(
        self,
        total: torch.Tensor,
        g_low: torch.Tensor,
        down: torch.Tensor,
        z: torch.Tensor,
        seed: int,
        threshold: int,
        *,
        gelu: bool,
    ) -> torch.Tensor:
        """(total [T, n] + drop(g_low [T, R] down [R, n])) act'(z), in place; act is gelu or nothing."""
        (rows, width), rank = total.shape, g_low.shape[1]
        tile, columns = 32, 128 if rank <= 64 else 64
        self._kernels.add_low_back[(_cut(width, columns), _cut(rows, tile))](
            total, g_low, down, z, _signed(seed), self.salt, _signed(threshold), rows, width,
            RANK=rank, RANKS=max(16, _power_of_2(rank)), DROPS=threshold != 0, GELU=gelu, ROWS=tile, COLUMNS=columns,
        )  # fmt: skip
        return total

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, longest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Causal attention within documents, none of more than `longest` tokens: q [T, H, d], k and v [T, Kv, d], all
        contiguous -> answers [T, H, d], and log2 of softmax's sums [T, H]. d is WIDEST_IN_A_TILE at most.

        bounds int32 [documents + 1]: where documents begin and the last one ends; behind it nothing is written.
        """
        answers, log_sums = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
        scale, grid, sizes = q.shape[2] ** -0.5 * _LOG2_E, (q.shape[1], len(bounds) - 1), _sizes(q, k)
        self._attention.attend[grid](q, k, v, bounds, answers, log_sums, scale, **sizes)
        if longest > _TILE:
            self._attention.attend_by_blocks[grid](q, k, v, bounds, answers, log_sums, scale, **sizes)
        return answers, log_sums

    def attend_backward(
        self,
        g: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bounds: torch.Tensor,
        longest: int,
        answers: torch.Tensor,
        log_sums: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From the gradient of the answers, contiguous too, to those of q, k and v."""
        g_q, g_k, g_v = torch.empty_like(q), torch.empty_like(q), torch.empty_like(q)
        slope = q.shape[2] ** -0.5
        grid, given = (q.shape[1], len(bounds) - 1), (g, q, k, v, bounds, answers, log_sums)
        scales, sizes = (slope * _LOG2_E, slope), _sizes(q, k)
        self._attention.attend_backward[grid](*given, g_q, g_k, g_v, *scales, **sizes)
        if longest > _TILE:
            self._attention.query_gradient_by_blocks[grid](*given, g_q, *scales, **sizes)
            self._attention.key_gradients_by_blocks[grid](*given, g_k, g_v, *scales, **sizes)
        return g_q, _sum_of_groups(g_k, k), _sum_of_groups(g_v, v)


def covers(x: torch.Tensor) -> bool:
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)


def _sizes(q: torch.Tensor, k: torch.Tensor) -> dict[str, int]:
    """What the kernels of attention are told when they are compiled."""
    heads = {"HEADS": q.shape[1], "KV_HEADS": k.shape[1], "WIDTH": q.shape[2], "WIDE": max(16, _power_of_2(q.shape[2]))}
    return {**heads, "BLOCK": _TILE, "num_warps": _WARPS, "num_stages": 1}


def _sum_of_groups(g: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """[T, H, d] -> [T, Kv, d]: over the query heads that share a key head."""
    tokens, heads, width = of.shape
    return g if g.shape[1] == heads else g.view(tokens, heads, -1, width).sum(2)


def _power_of_2(count: int) -> int:
    """The next one from `count` on."""
    return 1 << (count - 1).bit_length()


def _cut(count: int, size: int) -> int:
    return -(-count // size)


def _programs(x: torch.Tensor) -> tuple[int]:
    return (_cut(x.numel(), _ELEMENTS),)


def _signed(number: int) -> int:
    """The 32 bits of a number as Triton takes them: one kernel for all seeds."""
    return number - (1 << 32) if number >= 1 << 31 else number
