"""Norms and gates against the plain formulas in fp64, gradients included, and against transformers' module."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from phinetune.model.elementwise import gated_silu, rms_norm


def _plain_norm(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


@given(st.integers(1, 7), st.integers(1, 33), st.sampled_from([1e-3, 1.0, 50.0]))
@settings(deadline=None, max_examples=50)
def test_rms_norm_equals_the_formula(rows, width, size):
    generator = torch.Generator().manual_seed(rows * width)
    x, weight, upstream = (torch.randn(n, width, generator=generator) for n in (rows, 1, rows))
    x.mul_(size).requires_grad_()
    wide = x.detach().double().requires_grad_()
    ours, plain = rms_norm(x, weight[0], 1e-5), _plain_norm(wide, weight[0].double(), 1e-5)
    torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=1e-5)
    (mine,) = torch.autograd.grad((ours * upstream).sum(), x)
    (reference,) = torch.autograd.grad((plain * upstream.double()).sum(), wide)
    torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-4 / size)


def test_rms_norm_in_bf16_rounds_as_transformers_does():
    module = LlamaRMSNorm(64, 1e-5).to(torch.bfloat16)
    torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    torch.testing.assert_close(rms_norm(x, module.weight, 1e-5), module(x), rtol=2**-7, atol=0)


@given(st.integers(1, 7), st.integers(1, 33))
@settings(deadline=None, max_examples=50)
def test_gated_silu_equals_the_formula(rows, width):
    generator = torch.Generator().manual_seed(rows * width)
    gate, up, upstream = (3 * torch.randn(rows, width, generator=generator) for _ in range(3))
    pairs = [(gate.requires_grad_(), up.requires_grad_())]
    pairs.append(tuple(t.detach().double().requires_grad_() for t in pairs[0]))
    ours, plain = gated_silu(*pairs[0]), silu(pairs[1][0]) * pairs[1][1]
    torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad((ours * upstream).sum(), pairs[0])
    reference = torch.autograd.grad((plain * upstream.double()).sum(), pairs[1])
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_formats_are_kept(dtype):
    x = torch.ones(2, 4, dtype=dtype)
    assert rms_norm(x, x[0], 1e-5).dtype == gated_silu(x, x).dtype == dtype
