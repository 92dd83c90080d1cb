"""attention.c against the attention by blocks in fp32, rotation and gradients included."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phinetune.model.bands import document_attention_by_bands, has_bands
from phinetune.model.documents import document_attention_by_blocks, lay_out_documents

CPU = torch.device("cpu")
HALF_STEP = 2**-8  # of a bf16 number, relative
pytestmark = pytest.mark.skipif(not has_bands(CPU, torch.bfloat16), reason="needs a C compiler with OpenMP")


def _row(lengths, heads, kv_heads, width, rotated, size=1.0):
    generator = torch.Generator().manual_seed(sum(lengths))
    sizes = [heads * width, kv_heads * width, kv_heads * width]
    q, k, v = (size * torch.randn(sum(lengths), n, generator=generator) for n in sizes)
    angles = torch.randn(sum(lengths), rotated // 2, generator=generator)
    return [part.bfloat16().requires_grad_() for part in (q, k, v)], (angles.cos(), angles.sin())


def _with_gradients(attended, inputs):
    upstream = torch.randn(attended.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    return [attended, *torch.autograd.grad(attended, inputs, upstream.to(attended.dtype))]


def _bands(lengths, inputs, angles, width):
    return _with_gradients(document_attention_by_bands(*inputs, *angles, lengths, width), inputs)


def _exact(lengths, heads, kv_heads, width, inputs, angles):
    inputs = [part.detach().float().requires_grad_() for part in inputs]
    layout = lay_out_documents(lengths, heads, kv_heads, width, CPU)
    return _with_gradients(document_attention_by_blocks(*inputs, *angles, layout, width**-0.5), inputs)


@given(
    lengths=st.lists(st.integers(1, 75), min_size=1, max_size=8).map(tuple),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (9, 3)]),
    width=st.sampled_from([2, 8, 20, 64, 80]),
    share=st.sampled_from([1, 2]),
    size=st.sampled_from([0.1, 1.0, 6.0]),
)
@settings(deadline=None, max_examples=80)
def test_equals_attention_in_fp32_to_the_last_place_of_bf16(lengths, heads, width, share, size):
    inputs, angles = _row(lengths, *heads, width, width // share, size)
    exact = _exact(lengths, *heads, width, inputs, angles)
    for ours, plain in zip(_bands(lengths, inputs, angles, width), exact, strict=True):
        assert ours.dtype == torch.bfloat16
        # One rounding is 2**-9 at most; the products before it are in fp32, in another order, and what that does to a
        # score, a product of two of this size, its probability shows.
        torch.testing.assert_close(
            ours.float(), plain, rtol=HALF_STEP, atol=2e-5 * max(size, size**2) * float(plain.detach().abs().max() + 1)
        )


@pytest.mark.parametrize("length", [16, 31, 32, 33, 63, 64, 65, 300, 1025])
def test_bands_and_vectors_may_end_anywhere(length):
    inputs, angles = _row((length, 3), 2, 1, 20, 8)
    for ours, plain in zip(
        _bands((length, 3), inputs, angles, 20), _exact((length, 3), 2, 1, 20, inputs, angles), strict=True
    ):
        assert float((ours.float() - plain).norm() / plain.norm()) < HALF_STEP


def test_the_number_of_threads_changes_no_bit():
    lengths = (40, 7, 90, 1, 33)
    inputs, angles = _row(lengths, 4, 2, 16, 16)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(_bands(lengths, inputs, angles, 16))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_documents_do_not_see_each_other_nor_what_comes_later():
    inputs, angles = _row((20, 20), 2, 1, 8, 8)
    before = document_attention_by_bands(*inputs, *angles, (20, 20), 8)
    with torch.no_grad():
        for part in inputs:
            part[30:] = 9
    after = document_attention_by_bands(*inputs, *angles, (20, 20), 8)
    assert torch.equal(before[:30], after[:30])
    assert not torch.equal(before[30:], after[30:])


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stay_so_where_they_are_seen(broken):
    inputs, angles = _row((40, 5), 1, 1, 8, 8)
    with torch.no_grad():
        inputs[1][10, 0] = broken
    attended, *gradients = _bands((40, 5), inputs, angles, 8)
    assert torch.isfinite(attended[:10]).all()
    seen = torch.isfinite(attended[10:40])  # an infinite key may make scores that count for nothing
    assert not (seen.any() if math.isnan(broken) else seen.all())
    assert torch.isfinite(attended[40:]).all()
    assert not all(bool(torch.isfinite(gradient[:40]).all()) for gradient in gradients)
    assert all(bool(torch.isfinite(gradient[40:]).all()) for gradient in gradients)
