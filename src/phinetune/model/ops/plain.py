"""The memory passes as tensor operations: for every device and number format, and the reference for kernels.c."""

from __future__ import annotations

import torch
from torch.nn.functional import gelu, silu

# Elements of logits at a time: 4 MB stay in the processor's cache from pass to pass; a GPU wants few kernels.
_LOGITS_IN_FP32, _LOGITS_ON_GPU = 1 << 20, 1 << 26


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
        few = max(1, (_LOGITS_ON_GPU if logits.is_cuda else _LOGITS_IN_FP32) // logits.shape[1])
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

    def rotate(self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, back: bool = False) -> torch.Tensor:
        """Every head [T, heads, d] turned by its token's angles [T, d'/2], or turned back, computed in fp32."""
        wide = heads.to(torch.float32, copy=True)
        rotate_(wide, cos, -sin if back else sin)
        return wide.to(heads.dtype)


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
