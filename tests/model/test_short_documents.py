"""Attention of short documents on a GPU against that by blocks in fp32: on a GPU, or as Triton interprets it."""

from __future__ import annotations

import pytest
import torch

from phinetune.model import fused_attention, short_documents
from phinetune.model.documents import document_attention_by_blocks, lay_out_documents
from phinetune.model.flash import document_bounds
from phinetune.model.fused_attention import fused_document_attention
from phinetune.model.ops.gpu import GpuOps
from phinetune.model.short_documents import Short

pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"
# The interpreter takes bf16 for integers in a product.
DTYPES = [(torch.float16, 1e-2), *([(torch.bfloat16, 2e-2)] if ON_GPU else [])]
HEADS = [(9, 3, 64, 32), (4, 4, 80, 16)]  # query heads, key heads, their width, half of what is turned
ROWS = [(17,), (1, 0, 40)]
if ON_GPU:
    ROWS += [(1, 2, 17), (64, 33, 32), (65, 128, 1, 127, 96, 0, 2), (500, 3, 129), tuple(range(1, 65))]
OPS = GpuOps()


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    monkeypatch.setattr(fused_attention, "ops_for", lambda _x: OPS)


def _row(lengths, heads, kv_heads, width, half, dtype=torch.float16, size=1.0):
    generator = torch.Generator().manual_seed(sum(lengths))
    sizes = [heads * width, kv_heads * width, kv_heads * width]
    q, k, v = (size * torch.randn(sum(lengths), n, generator=generator) for n in sizes)
    angles = torch.randn(sum(lengths), half, generator=generator)
    inputs = [part.to(DEVICE, dtype).requires_grad_() for part in (q, k, v)]
    return inputs, (angles.cos().to(DEVICE), angles.sin().to(DEVICE))


def _with_gradients(attended, inputs):
    upstream = torch.randn(attended.shape, generator=torch.Generator().manual_seed(1)).half().to(attended)
    return [attended.detach(), *torch.autograd.grad(attended, inputs, upstream)]


def _ours(lengths, inputs, angles, width, longest=None):
    kernel = Short(OPS, document_bounds(lengths, DEVICE), longest or max(lengths))
    return _with_gradients(fused_document_attention(*inputs, *angles, kernel, width), inputs)


def _exact(lengths, heads, kv_heads, width, inputs, angles):
    inputs = [part.detach().float().requires_grad_() for part in inputs]
    layout = lay_out_documents([n for n in lengths if n], heads, kv_heads, width, DEVICE)
    return _with_gradients(document_attention_by_blocks(*inputs, *angles, layout, width**-0.5), inputs)


def _agree(ours, exact, tolerance):
    for part, plain in zip(ours, exact, strict=True):
        assert part.shape == plain.shape
        assert torch.isfinite(part).all()
        assert float((part.double() - plain.double()).norm()) <= tolerance * float(plain.double().norm())


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("lengths", ROWS)
def test_answers_and_gradients(lengths, heads, dtype, tolerance):
    inputs, angles = _row(lengths, *heads, dtype)
    ours = _ours(lengths, inputs, angles, heads[2])
    assert {part.dtype for part in ours} == {dtype}
    _agree(ours, _exact(lengths, *heads[:3], inputs, angles), tolerance)


@pytest.mark.parametrize("heads", [(1, 1, 80, 16), (2, 1, 64, 32)])
def test_a_long_one_among_short_ones_that_is_shorter_than_it_might_be(heads):
    lengths = (150, 0, 33)
    inputs, angles = _row(lengths, *heads)
    _agree(_ours(lengths, inputs, angles, heads[2], 512), _exact(lengths, *heads[:3], inputs, angles), 1e-2)


@pytest.mark.parametrize("heads", [(2, 1, 8, 4), (1, 1, 24, 12), (2, 2, 40, 4), (1, 1, 96, 48), (1, 1, 128, 64)])
def test_heads_of_every_width(heads):
    lengths = (4, 19)
    inputs, angles = _row(lengths, *heads)
    _agree(_ours(lengths, inputs, angles, heads[2]), _exact(lengths, *heads[:3], inputs, angles), 1e-2)


def test_scores_beyond_what_fp16_holds():
    """Of Phi-2: its q·k pass 65504, and a softmax of such scores is one key."""
    lengths, heads = (6, 70), (1, 1, 80, 16)
    inputs, angles = _row(lengths, *heads, size=100.0)
    answers, exact = (
        found[0] for found in (_ours(lengths, inputs, angles, 80), _exact(lengths, *heads[:3], inputs, angles))
    )
    _agree([answers], [exact], 2e-2)


def test_a_document_does_not_see_another():
    lengths, heads = (5, 70), (2, 1, 16, 8)
    inputs, angles = _row(lengths, *heads)
    before = _ours(lengths, inputs, angles, 16)
    with torch.no_grad():
        for part in inputs:
            part[:5] = torch.nan
    after = _ours(lengths, inputs, angles, 16)
    for part, same in zip(before, after, strict=True):
        assert torch.equal(part[5:], same[5:])
        assert same[:5].isnan().any()


def test_the_same_twice_and_with_empty_documents_in_between():
    lengths, heads = (7, 20), (2, 1, 16, 8)
    inputs, angles = _row(lengths, *heads)
    once = _ours(lengths, inputs, angles, 16)
    for again in (_ours(lengths, inputs, angles, 16), _ours((0, 7, 0, 20, 0), inputs, angles, 16, 50)):
        assert all(torch.equal(part, same) for part, same in zip(once, again, strict=True))


def test_they_are_tried_before_they_are_taken(monkeypatch):
    bounds = document_bounds((3, 4), DEVICE)
    monkeypatch.setattr(short_documents, "ops_for", lambda _x: OPS)
    monkeypatch.setattr(short_documents, "_are_right", short_documents._are_right.__wrapped__)
    heads = (2, 1, 16)
    assert short_documents.short_documents(bounds, 4, torch.float16, heads) == Short(OPS, bounds, 4)
    assert short_documents.short_documents(bounds, 4, torch.float16, (2, 1, 256)) is None
    assert short_documents.short_documents(bounds, 4, torch.float16, (3, 2, 16)) is None
    right = GpuOps.attend_backward
    monkeypatch.setattr(GpuOps, "attend_backward", lambda *given: tuple(1.1 * g for g in right(*given)))
    assert short_documents.short_documents(bounds, 4, torch.float16, heads) is None
    monkeypatch.setattr(GpuOps, "attend", lambda *_: (_ for _ in ()).throw(OSError("no compiler")))
    assert short_documents.short_documents(bounds, 4, torch.float16, heads) is None


@pytest.mark.skipif(ON_GPU, reason="without a GPU")
def test_nothing_for_a_processor():
    bounds = document_bounds((3, 4), DEVICE)
    assert short_documents.short_documents(bounds, 4, torch.float16, (2, 1, 16)) is None


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_a_recorded_graph_serves_documents_of_other_lengths():
    heads = (4, 2, 64, 32)
    inputs, angles = _row((30, 20, 10), *heads)
    kernel = Short(OPS, document_bounds((30, 20, 10), DEVICE), 64)
    fused_document_attention(*inputs, *angles, kernel, 64)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        attended = fused_document_attention(*inputs, *angles, kernel, 64)
    kernel.bounds.copy_(torch.tensor([0, 1, 1, 60], dtype=torch.int32))
    graph.replay()
    _agree([attended], _exact((1, 59), *heads[:3], inputs, angles)[:1], 1e-2)
