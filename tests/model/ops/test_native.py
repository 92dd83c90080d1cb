"""kernels.c against the plain tensor operations in fp64 and bf16, over random shapes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phinetune.model.ops import native, ops_for
from phinetune.model.ops.native import NativeOps
from phinetune.model.ops.plain import PLAIN

NATIVE = native.load()
needs_a_compiler = pytest.mark.skipif(NATIVE is None, reason="needs a C compiler with OpenMP")
HALF_STEP = 2**-8  # of a bf16 number, relative


def _draw(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return (size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


def _agree(ours: torch.Tensor, exact: torch.Tensor, steps: float = 1.0) -> None:
    torch.testing.assert_close(ours.double(), exact.double(), rtol=steps * HALF_STEP, atol=1e-6)


def test_a_machine_with_a_compiler_has_the_kernels():
    if sys.platform.startswith("linux") and shutil.which("gcc"):
        assert isinstance(NATIVE, NativeOps)
        assert isinstance(ops_for(torch.empty(1, dtype=torch.bfloat16)), NativeOps)
    assert ops_for(torch.empty(1)) is PLAIN


@pytest.mark.parametrize("environment", [{"PHINETUNE_NATIVE": "0"}, {"CC": "no-such-compiler"}, {"CC": "false"}])
def test_without_them_the_plain_ones_are_taken(environment):
    code = (
        "import torch\nfrom phinetune.model.ops import ops_for\nfrom phinetune.model.ops.plain import PLAIN\n"
        "assert ops_for(torch.empty(1, dtype=torch.bfloat16)) is PLAIN"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@needs_a_compiler
@given(st.integers(1, 9), st.integers(1, 200), st.sampled_from([1e-2, 1.0, 30.0]))
@settings(deadline=None, max_examples=40)
def test_rms_norm(rows, n, size):
    x, weight, g = _draw(rows, n, size=size), _draw(n, seed=1), _draw(rows, n, seed=2)
    y, scale = NATIVE.rms_norm(x, weight, 1e-5)
    plain, plain_scale = PLAIN.rms_norm(x, weight, 1e-5)
    torch.testing.assert_close(scale, plain_scale, rtol=1e-5, atol=0)
    _agree(y, plain, 2)
    ours = NATIVE.rms_norm_backward(g, x, weight, scale)
    exact = PLAIN.rms_norm_backward(g, x.float(), weight.float(), plain_scale).double()
    assert (ours.double() - exact).norm() <= HALF_STEP * exact.norm() + 1e-6


@needs_a_compiler
@given(st.integers(1, 9), st.integers(1, 200), st.sampled_from([0.1, 3.0, 60.0]))
@settings(deadline=None, max_examples=40)
def test_gates_and_activations(rows, n, size):
    gate, up, g = _draw(rows, n, size=size), _draw(rows, n, seed=1), _draw(rows, n, seed=2)
    wide = [t.double() for t in (g, gate, up)]
    _agree(NATIVE.gated_silu(gate, up), PLAIN.gated_silu(*wide[1:]))
    for ours, exact in zip(NATIVE.gated_silu_backward(g, gate, up), PLAIN.gated_silu_backward(*wide), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=HALF_STEP, atol=1e-5 * size)
    torch.testing.assert_close(NATIVE.gelu(gate).double(), PLAIN.gelu(wide[1]), rtol=HALF_STEP, atol=1e-5)
    ours, exact = NATIVE.gelu_backward(g, gate), PLAIN.gelu_backward(*wide[:2])
    torch.testing.assert_close(ours.double(), exact, rtol=HALF_STEP, atol=1e-5 * size)


@needs_a_compiler
@given(st.integers(1, 6), st.integers(2, 300), st.sampled_from([0.1, 5.0, 300.0]))
@settings(deadline=None, max_examples=40)
def test_softmax_minus_onehot(rows, n, size):
    logits = _draw(rows, n, size=size)
    targets = torch.randint(n, (rows,), generator=torch.Generator().manual_seed(rows))
    exact = logits.double()
    plain_loss = torch.nn.functional.cross_entropy(exact, targets, reduction="sum")
    exact = exact.softmax(-1)
    exact[torch.arange(rows), targets] -= 1
    loss = NATIVE.softmax_minus_onehot_(logits, targets)
    torch.testing.assert_close(loss.double(), plain_loss, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(logits.double(), exact, rtol=HALF_STEP, atol=1e-6)


@needs_a_compiler
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stay_so(broken):
    x = _draw(3, 40)
    x[1, 7] = broken
    logits = x.clone()
    assert not torch.isfinite(NATIVE.softmax_minus_onehot_(logits, torch.tensor([0, 0, 0])))
    assert not torch.isfinite(NATIVE.rms_norm(x, _draw(40), 1e-5)[0][1]).all()
    assert not torch.isfinite(NATIVE.gated_silu(x, x)[1, 7])
    assert not torch.isfinite(NATIVE.gelu(x)[1, 7])
