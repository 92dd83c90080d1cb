"""The fast LoRA linear: PEFT's own parameters, and one autograd function for all layers that read the same input.

    yᵢ = x Wᵢᵀ + bᵢ + sᵢ · drop(x) Aᵢᵀ Bᵢᵀ       W [out, in] frozen, A [r, in], B [out, r], s = alpha / r

q, k and v (gate and up; in Phi also fc1) read one x. They share the dropped x, one product with all their A's side by
side, and one with all of them on the way back. The plain reference is PEFT's forward, which takes over for whatever
is not covered here (another adapter kind, a merged or switched-off adapter).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as PeftLinear

from phinetune.model.ops import ops_for
from phinetune.model.thin import thin_products


@dataclass(frozen=True)
class Frozen:
    """The part of a layer that is not trained. `scale` is s, or None where the layer has no adapter."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float | None


class LoraGroup(torch.autograd.Function):
    """(z [T, in], layers, share, gelu, A₁, B₁, A₂, B₂, …) -> (y₁ [T, out₁], y₂ [T, out₂], …).

    x is gelu(z) where `gelu` is set (its tanh form), else z itself. A and B are those of the layers that have an
    adapter, in order. Gradients for z, A and B; the frozen weights get none. `share` of x is dropped before the
    adapters, and what is kept scaled up by 1 / (1 - share). Saved for backward: z, x where it is not computed again,
    what was dropped, and drop(x) Aᵀ, which has r columns a layer.
    """

    @staticmethod
    def forward(
        ctx: Any, z: torch.Tensor, layers: Sequence[Frozen], share: float, gelu: bool, *adapters: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        downs, ups = adapters[::2], adapters[1::2]
        ranks = [up.shape[1] for up in ups]
        thin = thin_products(z, share, sum(ranks), gelu=gelu)
        x = ops_for(z).gelu(z) if gelu else z
        down = torch.cat(downs).to(z.dtype) if adapters else z.new_empty(0, z.shape[1])
        low = thin.low(x, down)
        scales = [layer.scale / (1 - share) for layer in layers if layer.scale is not None]
        scaled_ups = [(up * scale).to(z.dtype) for up, scale in zip(ups, scales, strict=True)]
        added = iter(zip(torch.split(low, ranks, dim=1), scaled_ups, strict=True) if ups else ())
        outputs = []
        for layer in layers:
            y = torch.nn.functional.linear(x, layer.weight, layer.bias)
            if layer.scale is not None:
                part, up = next(added)
                y.addmm_(part, up.T)
            outputs.append(y)
        ctx.save_for_backward(z, x if thin.keeps_input else None, low, down, *scaled_ups)
        ctx.layers, ctx.scales, ctx.thin, ctx.dtypes = layers, scales, thin, [a.dtype for a in adapters]
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        z, x, low, down, *scaled_ups = ctx.saved_tensors
        g_low, g_x, g_ups, start = torch.empty_like(low), None, [], 0
        adapters = iter(zip(scaled_ups, ctx.scales, strict=True))
        for layer, g in zip(ctx.layers, gradients, strict=True):
            if layer.scale is not None:
                up, scale = next(adapters)
                part = slice(start, start + up.shape[1])
                start = part.stop
                torch.mm(g, up, out=g_low[:, part])
                g_ups.append((g.T @ low[:, part]).float().mul_(scale))
            if ctx.needs_input_grad[0]:
                g_x = g @ layer.weight if g_x is None else g_x.addmm_(g, layer.weight)
        pairs = []
        if scaled_ups:
            g_downs = ctx.thin.down_gradient(g_low, z, x).split([up.shape[1] for up in scaled_ups])
            pairs = [g for pair in zip(g_downs, g_ups, strict=True) for g in pair]
        g_z = ctx.thin.input_gradient_(g_x, g_low, down, z) if g_x is not None else None
        return g_z, None, None, None, *(g.to(dtype) for g, dtype in zip(pairs, ctx.dtypes, strict=True))


def lora_group(z: torch.Tensor, modules: Sequence[Any], *, gelu: bool = False) -> tuple[torch.Tensor, ...]:
    """z [..., in], or gelu(z), through every module of the group. The modules are covered ones (see `is_covered`)."""
    layers, adapters, share = [], [], 0.0
    for module in modules:
        base = getattr(module, "base_layer", module)
        scale = None
        if base is not module and not module.disable_adapters:
            [name] = module.active_adapters
            scale = module.scaling[name]
            adapters += [module.lora_A[name].weight, module.lora_B[name].weight]
            drop = module.lora_dropout[name]
            share = drop.p if module.training and isinstance(drop, torch.nn.Dropout) else 0.0
        layers.append(Frozen(base.weight, base.bias, scale))
    outputs = LoraGroup.apply(z.reshape(-1, z.shape[-1]), layers, share, gelu, *adapters)  # type: ignore[no-untyped-call]
    return tuple(y.view(*z.shape[:-1], -1) for y in outputs)


def is_covered(module: Any) -> bool:
    """An ordinary linear layer, bare or with one plain LoRA adapter."""
    if type(module) is torch.nn.Linear:
        return True
    if type(module) is not PeftLinear or type(module.base_layer) is not torch.nn.Linear or module.merged:
        return False
    [*names] = module.active_adapters
    return (
        len(names) == 1
        and names[0] in module.lora_A
        and names[0] not in module.lora_variant
        and module.lora_B[names[0]].bias is None
    )


@contextmanager
def fused_adapters(model: torch.nn.Module) -> Iterator[None]:
    """Within the block, the model's LoRA layers compute by `LoraGroup`, each by itself, wherever it covers them."""
    covered = [module for module in model.modules() if type(module) is PeftLinear and is_covered(module)]
    for module in covered:
        module.forward = MethodType(_forward, module)
    try:
        yield
    finally:
        for module in covered:
            del module.forward  # uncovers the method of PEFT's class


def _forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if self.disable_adapters or self.merged or args or kwargs:
        return PeftLinear.forward(self, x, *args, **kwargs)
    return lora_group(x, [self])[0]
