"""The GPU's kernels against the plain tensor operations: on a GPU, or as Triton interprets them where there is none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phinetune.model.dropout import HashDrops
from phinetune.model.ops import gpu, ops_for
from phinetune.model.ops.gpu import GpuOps
from phinetune.model.ops.plain import PLAIN

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.bfloat16, torch.float16]
PRODUCT_DTYPES = DTYPES if DEVICE == "cuda" else [torch.float16]  # the interpreter takes bf16 for integers in a product
OPS = GpuOps()
SHARE = round(0.3 * 2**32)
SIZES = st.integers(1, 70)
MANY = st.integers(1, 700 if DEVICE == "cuda" else 300)
EXAMPLES = 40 if DEVICE == "cuda" else 6  # interpreted, a program takes some milliseconds


def _draw(*shape: int, seed: int = 0, size: float = 1.0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return (size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(DEVICE, dtype)


def _agree(ours: torch.Tensor, exact: torch.Tensor, tolerance: float = 1e-2) -> None:
    """In norm: the one measure that neither a few rounded numbers nor a wrong one can pass by."""
    assert ours.shape == exact.shape
    assert torch.isfinite(ours).all()
    assert float((ours.double() - exact.double()).norm()) <= tolerance * float(exact.double().norm()) + 1e-6


def _dropped(x: torch.Tensor, seed: int, threshold: int) -> torch.Tensor:
    return OPS.drop(x, seed, threshold) if threshold else x


def test_a_processor_takes_the_others():
    assert not isinstance(ops_for(torch.empty(2, 2, dtype=torch.bfloat16)), GpuOps)
    if DEVICE == "cpu":
        assert gpu.load() is None
    elif torch.cuda.get_device_capability() >= (8, 0):
        assert isinstance(ops_for(torch.empty(2, 2, dtype=torch.bfloat16, device=DEVICE)), GpuOps)
        assert ops_for(torch.empty(2, 2, device=DEVICE)) is PLAIN


@given(st.integers(1, 9), SIZES, st.sampled_from([1e-2, 1.0, 30.0]), st.sampled_from(DTYPES))
@settings(deadline=None, max_examples=EXAMPLES)
def test_rms_norm(rows, n, size, dtype):
    x, weight, g = _draw(rows, n, size=size, dtype=dtype), _draw(n, seed=1, dtype=dtype), _draw(rows, n, seed=2)
    y, scale = OPS.rms_norm(x, weight, 1e-5)
    plain, plain_scale = PLAIN.rms_norm(x, weight, 1e-5)
    torch.testing.assert_close(scale, plain_scale, rtol=1e-5, atol=0)
    _agree(y, plain)
    g = g.to(dtype)
    _agree(OPS.rms_norm_backward(g, x, weight, scale), PLAIN.rms_norm_backward(g, x, weight, scale), 2e-2)


@given(st.integers(1, 9), SIZES, st.sampled_from(DTYPES))
@settings(deadline=None, max_examples=EXAMPLES)
def test_gated_silu(rows, n, dtype):
    gate, up, g = (_draw(rows, n, seed=seed, size=3, dtype=dtype) for seed in range(3))
    _agree(OPS.gated_silu(gate, up), PLAIN.gated_silu(gate.double(), up.double()))
    exact = PLAIN.gated_silu_backward(g.double(), gate.double(), up.double())
    for ours, plain in zip(OPS.gated_silu_backward(g, gate, up), exact, strict=True):
        _agree(ours, plain)


@given(st.integers(1, 5), st.integers(2, 9000), st.sampled_from([1.0, 20.0]))
@settings(deadline=None, max_examples=EXAMPLES)
def test_softmax_minus_onehot(rows, words, size):
    logits = _draw(rows, words, size=size)
    targets = torch.randint(words, (rows,), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    exact = logits.double().log_softmax(-1)
    buffer = torch.full((rows + 2, words), 7.0, dtype=logits.dtype, device=DEVICE)
    ours = buffer[:rows].copy_(logits)
    loss = OPS.softmax_minus_onehot_(ours, targets)
    at_targets = exact.gather(1, targets[:, None])
    torch.testing.assert_close(loss.double(), -at_targets.sum(), rtol=1e-4, atol=1e-4)
    _agree(ours, exact.exp() - torch.nn.functional.one_hot(targets, words))
    assert (buffer[rows:] == 7).all()


def test_a_logit_that_is_no_number_shows_in_the_loss():
    for bad in (float("nan"), float("inf")):
        logits = _draw(3, 50)
        logits[1, 7] = bad
        assert not torch.isfinite(OPS.softmax_minus_onehot_(logits, torch.zeros(3, dtype=torch.long, device=DEVICE)))


@pytest.mark.parametrize(("heads", "width", "half"), [(32, 80, 16), (9, 64, 32), (3, 24, 5)])
def test_rotation_forth_and_back(heads, width, half):
    x = _draw(7, heads, width)
    angles = _draw(7, half, seed=1).float()
    cos, sin = angles.cos(), angles.sin()
    turned = OPS.rotate(x, cos, sin)
    _agree(turned, PLAIN.rotate(x.double().float(), cos, sin))
    _agree(OPS.rotate(turned, cos, sin, back=True), x)


def test_the_share_asked_for_is_dropped_by_seed_and_salt():
    x = torch.ones(400, 113, dtype=torch.float16, device=DEVICE)
    first, again, other = (OPS.drop(x, seed, SHARE) for seed in (4_000_000_000, 4_000_000_000, 4_000_000_001))
    OPS.salt.fill_(-7)
    try:
        salted = OPS.drop(x, 4_000_000_000, SHARE)
    finally:
        OPS.salt.zero_()
    assert torch.equal(first, again)
    for dropped in (first, other, salted):
        assert float(dropped.float().mean()) == pytest.approx(0.7, abs=5 * (0.21 / x.numel()) ** 0.5)
    for one, two in ((first, other), (first, salted), (first[:, 1:], first[:, :-1]), (first[1:], first[:-1])):
        both = (one * two).float()
        assert float(both.mean()) == pytest.approx(0.49, abs=5 * (0.25 / both.numel()) ** 0.5)


def test_the_same_places_are_dropped_again_when_adding():
    x, total = _draw(37, 113), _draw(37, 113, seed=1)
    _agree(HashDrops(OPS, 5, SHARE).add_dropped_(total.clone(), x), total.double() + OPS.drop(x, 5, SHARE).double())


def test_a_target_below_0_counts_for_nothing():
    logits, targets = _draw(3, 50), torch.tensor([4, -1, 49], device=DEVICE)
    both = logits[::2].contiguous()
    expected = OPS.softmax_minus_onehot_(both, targets[::2])
    assert torch.equal(OPS.softmax_minus_onehot_(logits, targets), expected)
    assert torch.equal(logits[::2], both)
    assert not logits[1].any()


@given(SIZES, st.integers(1, 300), st.integers(1, 70), st.sampled_from([0, SHARE]), st.sampled_from(PRODUCT_DTYPES))
@settings(deadline=None, max_examples=EXAMPLES)
def test_the_product_of_what_is_kept(rows, width, rank, threshold, dtype):
    x, down = _draw(rows, width, dtype=dtype), _draw(rank, width, seed=1, dtype=dtype)
    exact = _dropped(x, 11, threshold).double() @ down.double().T
    _agree(OPS.low_product(x, down, 11, threshold), exact)


@given(
    MANY, st.integers(1, 150), st.integers(1, 70), st.sampled_from([0, SHARE]), st.booleans(),
    st.sampled_from(PRODUCT_DTYPES),
)  # fmt: skip
@settings(deadline=None, max_examples=EXAMPLES)
def test_the_gradient_of_the_product(rows, width, rank, threshold, gelu, dtype):
    z, g_low = _draw(rows, width, dtype=dtype), _draw(rows, rank, seed=1, dtype=dtype)
    x = PLAIN.gelu(z) if gelu else z
    exact = g_low.double().T @ _dropped(x, 11, threshold).double()
    ours = OPS.low_gradient(g_low, z, 11, threshold, gelu=gelu)
    assert ours.dtype == torch.float32
    _agree(ours, exact)


@given(
    SIZES, st.integers(1, 300), st.integers(1, 70), st.sampled_from([0, SHARE]), st.booleans(),
    st.sampled_from(PRODUCT_DTYPES),
)  # fmt: skip
@settings(deadline=None, max_examples=EXAMPLES)
def test_the_gradient_of_the_input(rows, width, rank, threshold, gelu, dtype):
    shapes = ((rows, width), (rows, width), (rank, width), (rows, rank))
    total, z, down, g_low = (_draw(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes))
    kept = _dropped(torch.ones_like(z), 11, threshold).double()
    exact = total.double() + (g_low.double() @ down.double()) * kept
    if gelu:
        exact = torch.ops.aten.gelu_backward(exact, z.double(), approximate="tanh")
    _agree(OPS.add_low_back_(total.clone(), g_low, down, z, 11, threshold, gelu=gelu), exact)
