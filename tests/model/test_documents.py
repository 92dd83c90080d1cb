"""Attention by blocks against scaled_dot_product_attention of each document, rotation and gradients included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from phinetune.model import document_blocks, documents
from phinetune.model.documents import document_attention_by_blocks, lay_out_documents

CPU = torch.device("cpu")


def _rotated(heads, cos, sin):
    """heads [T, h, d]: transformers' x cos + rotate_half(x) sin on the first numbers of every head."""
    width = 2 * cos.shape[1]
    x, rest = heads[..., :width], heads[..., width:]
    half = torch.cat([-x[..., width // 2 :], x[..., : width // 2]], dim=-1)
    cos, sin = (torch.cat([t, t], dim=-1)[:, None] for t in (cos, sin))
    return torch.cat([x * cos + half * sin, rest], dim=-1)


def _plain(q, k, v, cos, sin, lengths, heads, kv_heads, scaling):
    q, k, v = (t.view(t.shape[0], n, -1) for t, n in ((q, heads), (k, kv_heads), (v, kv_heads)))
    q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
    k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
    parts = zip(*(t.transpose(0, 1)[None].split(lengths, dim=2) for t in (q, k, v)), strict=True)
    attended = [scaled_dot_product_attention(*part, is_causal=True, scale=scaling) for part in parts]
    return torch.cat(attended, dim=2)[0].transpose(0, 1).flatten(1)


def _row(lengths, heads, kv_heads, width, rotated, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(lengths))
    sizes = [heads * width, kv_heads * width, kv_heads * width]
    q, k, v = (torch.randn(sum(lengths), n, generator=generator, dtype=dtype).requires_grad_() for n in sizes)
    angles = torch.randn(sum(lengths), rotated // 2, generator=generator)
    return q, k, v, angles.cos(), angles.sin()


def _both(lengths, heads, kv_heads, width, rotated):
    q, k, v, cos, sin = _row(lengths, heads, kv_heads, width, rotated, torch.float32)
    layout = lay_out_documents(lengths, heads, kv_heads, width, CPU)
    ours = document_attention_by_blocks(q, k, v, cos, sin, layout, 0.3)
    plain = _plain(q, k, v, cos, sin, lengths, heads, kv_heads, 0.3)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((y * upstream).sum(), (q, k, v)) for y in (ours, plain)]
    return [(ours, plain), *zip(*gradients, strict=True)]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (9, 3)]),
    width=st.sampled_from([8, 20]),
    rotated=st.sampled_from([2, 8]),
)
@settings(deadline=None, max_examples=60)
def test_equals_attention_of_each_document_alone_gradients_included(lengths, heads, width, rotated):
    for ours, plain in _both(lengths, *heads, width, rotated):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("keep", "at_once"), [(0, 1 << 24), (128, 1), (0, 5000)])
def test_long_documents_are_recomputed_and_go_in_parts_with_the_same_result(monkeypatch, keep, at_once):
    monkeypatch.setattr(documents, "KEEP_UP_TO", keep)
    monkeypatch.setattr(documents, "SCORES_AT_ONCE", at_once)
    for ours, plain in _both([50, 3, 17], 4, 2, 8, 8):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.sampled_from([64, 576, 2560]))
@settings(deadline=None, max_examples=60)
def test_every_document_is_in_one_block_and_blocks_cost_no_more_than_other_cuts(lengths, width):
    blocks = documents.divide(lengths, width)
    assert sorted(index for block in blocks for index in block) == list(range(len(lengths)))

    def cost(cut):
        overhead = document_blocks.BLOCK_OVERHEAD // width
        return sum(len(block) * max(lengths[i] for i in block) ** 2 + overhead for block in cut)

    assert cost(blocks) <= cost([range(len(lengths))])
    assert cost(blocks) <= cost([[i] for i in range(len(lengths))])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_short_formats_keep_their_own_precision(dtype, tolerance):
    lengths, q_k_v = (5, 9, 2), _row((5, 9, 2), 4, 2, 8, 8, torch.float32)
    layout = lay_out_documents(lengths, 4, 2, 8, CPU)
    exact = document_attention_by_blocks(*q_k_v, layout, 0.3)
    short = document_attention_by_blocks(*(t.to(dtype) for t in q_k_v[:3]), *q_k_v[3:], layout, 0.3)
    assert short.dtype == dtype
    assert float((short.float() - exact).norm() / exact.norm()) < tolerance


def test_fp16_does_not_overflow_where_the_product_of_q_and_k_would():
    q = torch.full((3, 64), 100.0, dtype=torch.float16)
    v = torch.arange(3.0, dtype=torch.float16)[:, None].expand(3, 64)
    assert torch.isinf(q @ q.T).all()
    layout = lay_out_documents((3,), 1, 1, 64, CPU)
    out = document_attention_by_blocks(q, q, v, torch.ones(3, 32), torch.zeros(3, 32), layout, 1 / 8)
    assert out[:, 0].tolist() == [0.0, 0.5, 1.0]
