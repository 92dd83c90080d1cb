from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phinetune.model.attention import document_attention


def _plain(q, k, v, lengths, scaling):
    """The textbook: one dense block-diagonal causal mask over the whole row, in fp64."""
    q, k, v = q.double(), k.double(), v.double()
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    allowed = (document[:, None] == document[None]).tril()
    scores = (q @ k.transpose(2, 3) * scaling).masked_fill(~allowed, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def _row(lengths, heads, kv_heads, width, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    return [
        torch.randn(1, h, total, width, generator=generator).to(dtype).requires_grad_()
        for h in (heads, kv_heads, kv_heads)
    ]


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.sampled_from([(4, 4), (4, 2), (9, 3)]),
    st.sampled_from([8, 20]),
)
@settings(deadline=None, max_examples=25)
def test_equals_dense_attention_under_a_block_mask_gradients_included(lengths, heads, width):
    q, k, v = _row(lengths, *heads, width)
    ours, _ = document_attention(None, q, k, v, None, document_lengths=tuple(lengths), scaling=0.3)
    plain = _plain(q, k, v, lengths, 0.3)
    torch.testing.assert_close(ours.double(), plain, rtol=1e-4, atol=1e-5)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((plain * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_fp16_does_not_overflow_where_the_product_of_q_and_k_would():
    # Phi-2's products reach beyond 65504, the largest fp16: 64 * 100 * 100 = 640,000.
    q = torch.full((1, 1, 3, 64), 100.0, dtype=torch.float16)
    v = torch.arange(3.0, dtype=torch.float16).view(1, 1, 3, 1).expand(1, 1, 3, 64)
    assert torch.isinf(q @ q.transpose(2, 3)).all()
    out, _ = document_attention(None, q, q, v, None, document_lengths=(3,), scaling=1 / 8)
    assert out.dtype == torch.float16
    assert out[0, :, 0, 0].tolist() == [0.0, 0.5, 1.0]
