"""Chunked linear cross-entropy against the plain one, gradients included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, linear

from phinetune.model import loss as loss_module
from phinetune.model.loss import linear_cross_entropy
from phinetune.model.ops import plain


def _case(places, width, vocabulary, bias, size=1.0):
    generator = torch.Generator().manual_seed(places * width + vocabulary)
    hidden = (size * torch.randn(places, width, generator=generator)).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=generator)
    shift = torch.randn(vocabulary, generator=generator) if bias else None
    return hidden, weight, shift, torch.randint(vocabulary, (places,), generator=generator)


@given(st.integers(1, 20), st.integers(1, 12), st.integers(2, 50), st.booleans(), st.sampled_from([10, 60, 1 << 20]))
@settings(deadline=None, max_examples=80)
def test_equals_cross_entropy_of_all_logits_however_it_is_cut(places, width, vocabulary, bias, at_once):
    hidden, weight, shift, targets = _case(places, width, vocabulary, bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "_LOGITS_AT_ONCE", at_once)
        patch.setattr(plain, "_LOGITS_IN_FP32", at_once // 3)
        ours = linear_cross_entropy(hidden, weight, shift, targets)
    whole = cross_entropy(linear(hidden, weight, shift), targets, reduction="sum")
    torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-5)
    mine, reference = (torch.autograd.grad(3 * value, hidden)[0] for value in (ours, whole))
    torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_short_formats_stay_near_fp32(dtype, tolerance):
    hidden, weight, shift, targets = _case(30, 16, 200, bias=True)
    exact = linear_cross_entropy(hidden, weight, shift, targets)
    (gradient,) = torch.autograd.grad(exact, hidden)
    short_hidden = hidden.detach().to(dtype).requires_grad_()
    short = linear_cross_entropy(short_hidden, weight.to(dtype), shift.to(dtype), targets)
    (short_gradient,) = torch.autograd.grad(short, short_hidden)
    assert short.dtype == torch.float32
    assert short_gradient.dtype == dtype
    assert float(short.detach()) == pytest.approx(float(exact.detach()), rel=tolerance)
    assert float((short_gradient.float() - gradient).norm() / gradient.norm()) < tolerance


def test_large_logits_do_not_overflow():
    hidden, weight, shift, targets = _case(5, 8, 30, bias=False, size=1e4)
    ours = linear_cross_entropy(hidden, weight, shift, targets)
    torch.testing.assert_close(ours, cross_entropy(linear(hidden, weight), targets, reduction="sum"))


def test_no_gradient_is_computed_where_none_is_wanted():
    hidden, weight, _, targets = _case(5, 8, 30, bias=False)
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, None, targets).grad_fn is None
