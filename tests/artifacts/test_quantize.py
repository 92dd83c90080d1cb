"""Which tensor takes which type, and that its bytes are those of llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from phinetune.artifacts import quantize
from phinetune.artifacts.quantize import KINDS, Kind, Packing, check_kind, pack, packed_bytes
from phinetune.errors import SettingsError

PHI2_LAYERS = 32


@pytest.fixture(scope="module")
def llama_cpp():
    """llama.cpp's ggml_quantize_chunk, as the server's library brings it."""
    package = pytest.importorskip("xllamacpp")
    [library] = Path(package.__file__).parent.glob("*.so") or [None]
    chunk = getattr(ctypes.CDLL(str(library)), "ggml_quantize_chunk", None)
    if chunk is None:
        pytest.skip("this build of llama.cpp keeps its quantizer to itself")
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return chunk


def _rows(rows: int = 700, width: int = 2560) -> np.ndarray:
    numbers = (np.random.default_rng(0).normal(size=(rows, width)) * 0.03).astype(np.float32)
    numbers[3], numbers[7], numbers[:, ::97] = 0, numbers[7] * 100, numbers[:, ::97] * 30
    return numbers


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in KINDS.values()} - {Kind.F32} | {Kind.IQ4_NL}))
def test_the_bytes_are_those_of_llama_cpp(kind, llama_cpp):
    rows = _rows()
    ours = pack(torch.from_numpy(rows), kind)
    theirs = np.zeros(packed_bytes(rows.shape, kind), np.uint8)
    assert llama_cpp(int(kind), rows.ctypes.data, theirs.ctypes.data, 0, *rows.shape, None) == theirs.nbytes
    np.testing.assert_array_equal(ours.reshape(-1).view(np.uint8), theirs)


@pytest.mark.parametrize("kind", sorted(quantize._NATIVE))
def test_the_fast_quantizers_give_the_bytes_of_the_library(kind, monkeypatch):
    if quantize.native() is None or not quantize.HAS_LIBGGUF:
        pytest.skip("needs a C compiler and libgguf")
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(1500, 512, generator=generator)
    rows[:300] = rows[:300].bfloat16().float()  # as base weights are: many numbers lie halfway between two levels
    rows[300:600] = (rows[300:600] * 4).round() / 4  # the largest comes with both signs
    rows[600:700, ::3] = 0
    for some, size in enumerate((0, -0.0, 1e-30, 1e-13, 1e-7, 1e5)):
        rows[700 + 10 * some : 710 + 10 * some] *= size
    rows[760:770] = 0.5
    rows[770:780] = -0.5
    rows[780:790] = rows[780:790].abs()
    rows[790:800, :16] = 0
    rows[800:810, :32] = 7
    rows[810:820, :16] *= 1e-6  # a run so small that its scale is rounded to nothing
    rows[820:830, :32] *= 1e6
    rows[830:, ::97] *= 30
    fast = pack(rows, kind)
    monkeypatch.setattr(quantize, "native", lambda: None)
    np.testing.assert_array_equal(fast, pack(rows, kind))


def _mixture(kind: str, tensor: str, width: int = 2560, **facts) -> list[str]:
    packing = Packing(kind, **{"layers": PHI2_LAYERS, "tied": False, "shared": 1} | facts)
    return [packing.kind_of(f"blk.{n}.{tensor}.weight", (width, width)).name for n in range(packing.layers)]


def test_phi2_in_q4_k_m_takes_six_bits_where_llama_cpp_does():
    # llama.cpp's rule for M: the first and last eighth of the layers, and every third between them
    six = {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31}
    for role in ("attn_v", "ffn_down"):
        assert {n for n, kind in enumerate(_mixture("q4_k_m", role)) if kind == "Q6_K"} == six
    assert set(_mixture("q4_k_m", "attn_q")) == {"Q4_K"}


def test_rows_that_256_does_not_divide_take_a_simple_type():
    assert set(_mixture("q4_k_s", "attn_q", width=576)) == {"Q5_0"}
    assert set(_mixture("q6_k", "attn_q", width=576)) == {"Q8_0"}
    assert set(_mixture("q4_0", "attn_q", width=100)) == {"F16"}


def test_vectors_stay_whole_and_the_head_takes_more():
    packing = Packing("q4_k_m", layers=32, tied=False, shared=1)
    assert packing.kind_of("blk.0.attn_norm.weight", (2560,)) == Kind.F32
    assert packing.kind_of("output.weight", (51200, 2560)) == Kind.Q6_K
    assert packing.kind_of("token_embd.weight", (51200, 2560)) == Kind.Q4_K
    tied = Packing("q4_0", layers=30, tied=True, shared=3)
    assert tied.kind_of("token_embd.weight", (49152, 576)) == Kind.Q8_0  # 576 numbers a row


def test_without_libgguf_a_compiler_is_enough_for_the_usual_mixtures(monkeypatch):
    if quantize.native() is None:
        pytest.skip("needs a C compiler")
    monkeypatch.setattr(quantize, "HAS_LIBGGUF", False)
    assert check_kind("q4_k_m") == "q4_k_m"
    assert Packing("q4_0", layers=32, tied=False, shared=1).kind_of("output.weight", (512, 2560)) == Kind.Q6_K
    with pytest.raises(SettingsError, match="q3_k_m is packed by the package libgguf") as caught:
        check_kind("q3_k_m")
    assert "q4_k_m" in caught.value.hint
    assert "q2_k" not in caught.value.hint


def test_without_libgguf_and_a_compiler_simple_types_remain_and_the_rest_is_refused(monkeypatch):
    rows = torch.from_numpy(_rows(8))
    before = pack(rows, Kind.Q5_0)
    monkeypatch.setattr(quantize, "HAS_LIBGGUF", False)
    monkeypatch.setattr(quantize, "native", lambda: None)
    np.testing.assert_array_equal(pack(rows, Kind.Q5_0), before)
    assert check_kind("Q4_0") == "q4_0"
    assert Packing("q4_0", layers=32, tied=False, shared=1).kind_of("output.weight", (512, 2560)) == Kind.Q8_0
    with pytest.raises(SettingsError, match="packed by the package libgguf") as caught:
        check_kind("q4_k_m")
    assert "pip install libgguf" in caught.value.hint


def test_every_kind_says_its_type_to_llama_cpp():
    for name, (kind, file_type) in KINDS.items():
        assert name.split("_")[0] in file_type.name.lower()
        assert kind in gguf.GGML_QUANT_SIZES
