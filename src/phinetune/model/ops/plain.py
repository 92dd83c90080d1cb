"""The memory passes as tensor operations: for every device and number format, and the reference for kernels.c."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import gelu, silu

_LOGITS_IN_FP32 = 1 << 20  # elements, 4 MB: they stay in the processor's cache from pass to pass


class PlainOps:
    """See the autograd functions that use them for what is computed; shapes are theirs."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """x [T, n], weight [n] -> x / rms(x) * weight, rounded before and after the weight; 1 / rms(x) [T, 1]."""
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        return (wide * scale).to(x.dtype).mul_(weight), scale

    def rms_norm_backward(
        self, g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        unit = x.float() * scale
        g_unit = g.float() * weight
        along = torch.linalg.vecdot(g_unit, unit).div_(x.shape[-1]).unsqueeze_(-1)
        return g_unit.addcmul_(unit, along, value=-1).mul_(scale).to(x.dtype)

    def gated_silu(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return silu(gate).mul_(up)

    def gated_silu_backward(
        self, g: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ops.aten.silu_backward(g * up, gate), silu(gate).mul_(g)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        return gelu(x, approximate="tanh")

    def gelu_backward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.gelu_backward(g, x, approximate="tanh")  # type: ignore[no-any-return]

    def softmax_minus_onehot_(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """logits [A, V] become softmax - onehot(targets [A]) in place; the summed cross-entropy is returned."""
        loss = torch.zeros((), device=logits.device)
        few = max(1, _LOGITS_IN_FP32 // logits.shape[1])
        for part, target in zip(torch.split(logits, few), torch.split(targets[:, None], few), strict=True):
            wide = part.float()
            highest = wide.amax(-1, keepdim=True)
            at_target = wide.gather(1, target)
            wide = wide.sub_(highest).exp_()
            total = wide.sum(-1, keepdim=True)
            loss += (total.log() + highest - at_target).sum()
            wide.div_(total).scatter_add_(1, target, torch.full_like(total, -1.0))
            part.copy_(wide)
        return loss

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
        """Head rows `fill` [N] of q, k and v [T, heads d], side by side, q and k turned -> [N, d] in fp32."""
        row = torch.cat([q, k, v], dim=1).float().view(q.shape[0], -1, head_dim)
        rotate_(row[:, : (q.shape[1] + k.shape[1]) // head_dim], cos, sin)
        return row.view(-1, head_dim).index_select(0, fill)

    def take_gradients(
        self,
        blocks: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        back: torch.Tensor,
        heads: Sequence[int],
        dtype: torch.dtype,
    ) -> list[torch.Tensor]:
        """The way back of `fill_blocks` for gradients [N, d]: [T, heads d] each for q, k and v in `dtype`."""
        row = blocks.index_select(0, back).view(cos.shape[0], -1, blocks.shape[1])
        rotate_(row[:, : heads[0] + heads[1]], cos, -sin)
        return [part.to(dtype).flatten(1) for part in torch.split(row, list(heads), dim=1)]

    def take_rows(self, blocks: torch.Tensor, places: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Rows `places` of blocks [N, d] in `dtype`."""
        return blocks.index_select(0, places).to(dtype)

    def fill_rows(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Rows `places` of rows [R, d] in fp32; place R is a row of zeros."""
        padded = torch.zeros(rows.shape[0] + 1, rows.shape[1], device=rows.device)
        padded[:-1] = rows
        return padded.index_select(0, places)


def rotate_(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Turn every head [T, heads, d] in place by its token's angles [T, d'/2]; with -sin, turn it back.

    The first d' numbers of a head are turned, halves paired as in transformers (Su et al., 2021, "RoFormer").
    """
    half = cos.shape[1]
    cos, sin = cos[:, None], sin[:, None]
    first, second = heads[..., :half], heads[..., half : 2 * half]
    carried = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(carried)


PLAIN = PlainOps()
