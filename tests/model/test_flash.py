"""What surrounds the GPU's fused kernel. The kernel itself runs where there is such a GPU."""

from __future__ import annotations

import pytest
import torch

from phinetune.model.documents import document_attention_by_blocks, lay_out_documents
from phinetune.model.flash import Flash, document_bounds, has_flash
from phinetune.model.fused_attention import fused_document_attention

HAS_GPU = torch.cuda.is_available() and has_flash(torch.device("cuda"), torch.bfloat16, 80)


def test_bounds_say_where_documents_begin_and_end():
    bounds = document_bounds((3, 1, 4), torch.device("cpu"))
    assert bounds.tolist() == [0, 3, 4, 8]
    assert bounds.dtype == torch.int32


def test_a_processor_has_no_such_kernel():
    assert not has_flash(torch.device("cpu"), torch.bfloat16, 80)


@pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU of compute capability 8.0")
@pytest.mark.parametrize("heads", [(32, 32, 80), (9, 3, 64)])
def test_the_kernel_agrees_with_attention_by_blocks(heads):
    query_heads, kv_heads, width = heads
    lengths, device = (33, 7, 120, 64), torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)

    def draw(count: int) -> torch.Tensor:
        made = torch.randn(sum(lengths), count * width, generator=generator, device=device)
        return made.bfloat16().requires_grad_()

    q, k, v = draw(query_heads), draw(kv_heads), draw(kv_heads)
    angles = torch.randn(sum(lengths), width // 4, generator=generator, device=device)
    cos, sin = angles.cos(), angles.sin()
    layout = lay_out_documents(lengths, query_heads, kv_heads, width, device)
    blocks = document_attention_by_blocks(q, k, v, cos, sin, layout, width**-0.5)
    kernel = Flash(document_bounds(lengths, device), max(lengths))
    flash = fused_document_attention(q, k, v, cos, sin, kernel, width)
    pairs = [(flash, blocks)]
    pairs += zip(*(torch.autograd.grad(y.float().sum(), (q, k, v)) for y in (flash, blocks)), strict=True)
    for ours, plain in pairs:
        assert float((ours - plain).norm() / plain.norm()) < 2e-2
