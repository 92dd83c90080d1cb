"""The memory passes as Triton kernels for NVIDIA GPUs; gpu.py calls them, kernels.c is their twin on a CPU.

A kernel reads and writes every number once. Rows are counted in 64 bits where a tensor may pass 2^31 elements.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _hash(state):
    """PCG (Jarzynski and Olano, 2020, "Hash Functions for GPU Rendering").

    Eight operations: the twice mixed hash of kernels.c has twenty, and took longer than reading the numbers does.
    """
    state = state * 747796405 + 2891336453
    state = ((state >> ((state >> 28) + 4)) ^ state) * 277803737
    return (state >> 22) ^ state


@triton.jit
def _start(seed, salt):
    """Where the pattern of a tensor begins: its own seed, and what changes from step to step in a recorded graph."""
    return _hash(seed.to(tl.uint32) ^ _hash(tl.load(salt).to(tl.uint32)))


@triton.jit
def _kept(place, start, threshold):
    """Whether an element stays: one fixed pattern of 2^32 elements, of which `start` decides the place."""
    return _hash(place.to(tl.uint32) ^ start) >= threshold.to(tl.uint32)


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _gelu_gate(z):
    """(1 + tanh(u)) / 2 with u = sqrt(2 / pi) (z + 0.044715 z^3), which is sigmoid(2 u)."""
    return _sigmoid((z + z * z * z * 0.044715) * 1.5957691216057308)


@triton.jit
def _gelu(z):
    return z * _gelu_gate(z)


@triton.jit
def _gelu_slope(z):
    s = _gelu_gate(z)
    return s + z * s * (1 - s) * (z * z * 0.134145 + 1) * 1.5957691216057308


@triton.jit(do_not_specialize=["seed", "threshold", "count"])
def drop(x, y, seed, salt, threshold, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    value = tl.load(x + place, mask=inside)
    tl.store(y + place, tl.where(_kept(place, _start(seed, salt), threshold), value, 0.0), mask=inside)


@triton.jit(do_not_specialize=["seed", "threshold", "count"])
def add_dropped(total, x, seed, salt, threshold, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    added = tl.where(_kept(place, _start(seed, salt), threshold), tl.load(x + place, mask=inside).to(tl.float32), 0.0)
    tl.store(total + place, tl.load(total + place, mask=inside).to(tl.float32) + added, mask=inside)


@triton.jit(do_not_specialize=["seed", "threshold", "rows"])
def low_product(
    x, down, low, seed, salt, threshold, rows, width, RANK: tl.constexpr, RANKS: tl.constexpr, DROPS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """low [rows, RANK] = drop(x) downᵀ, x [rows, width], down [RANK, width]; RANKS: RANK filled up to a power of 2."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    rank = tl.arange(0, RANKS)
    total = tl.zeros((ROWS, RANKS), tl.float32)
    pattern = _start(seed, salt)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        place = row[:, None] * width + column[None, :]
        value = tl.load(x + place, mask=(row[:, None] < rows) & (column[None, :] < width), other=0.0)
        if DROPS:
            value = tl.where(_kept(place, pattern, threshold), value, 0.0).to(value.dtype)
        inside = (rank[:, None] < RANK) & (column[None, :] < width)
        weight = tl.load(down + rank[:, None] * width + column[None, :], mask=inside, other=0.0)
        total = tl.dot(value, tl.trans(weight), total)
    inside = (row[:, None] < rows) & (rank[None, :] < RANK)
    tl.store(low + row[:, None] * RANK + rank[None, :], total, mask=inside)


@triton.jit(do_not_specialize=["seed", "threshold", "rows", "rows_a_part"])
def low_gradient(
    g_low, x, parts, seed, salt, threshold, rows, width, rows_a_part, RANK: tl.constexpr, RANKS: tl.constexpr,
    DROPS: tl.constexpr, GELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """parts [p, RANK, width] in fp32, whose sum is g_lowᵀ drop(act(x)): part p is that of its own share of the rows."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    rank = tl.arange(0, RANKS)
    total = tl.zeros((RANKS, COLUMNS), tl.float32)
    pattern = _start(seed, salt)
    first = part * rows_a_part
    for start in range(first, min(rows, first + rows_a_part), ROWS):
        row = (start + tl.arange(0, ROWS)).to(tl.int64)
        place = row[:, None] * width + column[None, :]
        value = tl.load(x + place, mask=(row[:, None] < rows) & (column[None, :] < width), other=0.0)
        if GELU:
            value = _gelu(value.to(tl.float32)).to(value.dtype)
        if DROPS:
            value = tl.where(_kept(place, pattern, threshold), value, 0.0).to(value.dtype)
        inside = (row[:, None] < rows) & (rank[None, :] < RANK)
        g = tl.load(g_low + row[:, None] * RANK + rank[None, :], mask=inside, other=0.0)
        total = tl.dot(tl.trans(g), value, total)
    inside = (rank[:, None] < RANK) & (column[None, :] < width)
    tl.store(parts + (part * RANK + rank[:, None]) * width + column[None, :], total, mask=inside)


@triton.jit(do_not_specialize=["seed", "threshold", "rows"])
def add_low_back(
    total, g_low, down, z, seed, salt, threshold, rows, width, RANK: tl.constexpr, RANKS: tl.constexpr,
    DROPS: tl.constexpr, GELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """total [rows, width] becomes (total + drop(g_low down)) act'(z), in place."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    rank = tl.arange(0, RANKS)
    inside = (row[:, None] < rows) & (rank[None, :] < RANK)
    g = tl.load(g_low + row[:, None] * RANK + rank[None, :], mask=inside, other=0.0)
    inside = (rank[:, None] < RANK) & (column[None, :] < width)
    added = tl.dot(g, tl.load(down + rank[:, None] * width + column[None, :], mask=inside, other=0.0))
    place = row[:, None] * width + column[None, :]
    if DROPS:
        added = tl.where(_kept(place, _start(seed, salt), threshold), added, 0.0)
    inside = (row[:, None] < rows) & (column[None, :] < width)
    value = tl.load(total + place, mask=inside, other=0.0).to(tl.float32) + added
    if GELU:
        value *= _gelu_slope(tl.load(z + place, mask=inside, other=0.0).to(tl.float32))
    tl.store(total + place, value, mask=inside)


@triton.jit
def rotate(
    heads, turned, cos, sin, SIGN: tl.constexpr, HEADS: tl.constexpr, ALL_HEADS: tl.constexpr, WIDTH: tl.constexpr,
    HALF: tl.constexpr, ALL_HALF: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """One token: the first 2 HALF numbers of every head turned by its angles, the others copied. ALL_… are filled up
    to powers of 2; REST is for what is copied, 0 for nothing."""
    token = tl.program_id(0).to(tl.int64)
    head, half = tl.arange(0, ALL_HEADS), tl.arange(0, ALL_HALF)
    start = token * HEADS * WIDTH + head[:, None] * WIDTH
    c = tl.load(cos + token * HALF + half, mask=half < HALF)[None, :]
    s = tl.load(sin + token * HALF + half, mask=half < HALF)[None, :] * SIGN
    place = start + half[None, :]
    inside = (head[:, None] < HEADS) & (half[None, :] < HALF)
    first = tl.load(heads + place, mask=inside).to(tl.float32)
    second = tl.load(heads + place + HALF, mask=inside).to(tl.float32)
    tl.store(turned + place, first * c - second * s, mask=inside)
    tl.store(turned + place + HALF, second * c + first * s, mask=inside)
    if REST:
        rest = 2 * HALF + tl.arange(0, REST)
        inside = (head[:, None] < HEADS) & (rest[None, :] < WIDTH)
        tl.store(turned + start + rest[None, :], tl.load(heads + start + rest[None, :], mask=inside), mask=inside)


@triton.jit
def rms_norm(x, weight, y, scales, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < WIDTH
    value = tl.load(x + row * WIDTH + column, mask=inside, other=0.0)
    wide = value.to(tl.float32)
    scale = 1 / tl.sqrt(tl.sum(wide * wide) / WIDTH + eps)
    unit = (wide * scale).to(value.dtype).to(tl.float32)
    tl.store(y + row * WIDTH + column, unit * tl.load(weight + column, mask=inside).to(tl.float32), mask=inside)
    tl.store(scales + row, scale)


@triton.jit
def rms_norm_backward(g, x, weight, scales, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < WIDTH
    scale = tl.load(scales + row)
    unit = tl.load(x + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32) * scale
    g_unit = tl.load(g + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    g_unit *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    along = tl.sum(g_unit * unit) / WIDTH
    tl.store(out + row * WIDTH + column, (g_unit - unit * along) * scale, mask=inside)


@triton.jit(do_not_specialize=["count"])
def gated_silu(gate, up, y, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    opened = tl.load(gate + place, mask=inside).to(tl.float32)
    opened = opened * _sigmoid(opened)
    tl.store(y + place, opened * tl.load(up + place, mask=inside).to(tl.float32), mask=inside)


@triton.jit(do_not_specialize=["count"])
def gated_silu_backward(g, gate, up, g_gate, g_up, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    upstream = tl.load(g + place, mask=inside).to(tl.float32)
    opened = tl.load(gate + place, mask=inside).to(tl.float32)
    s = _sigmoid(opened)
    tl.store(g_up + place, upstream * opened * s, mask=inside)
    slope = s * (1 + opened * (1 - s))
    tl.store(g_gate + place, upstream * tl.load(up + place, mask=inside).to(tl.float32) * slope, mask=inside)


@triton.jit
def softmax_minus_onehot(logits, targets, losses, stride, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    """A row of logits becomes softmax - onehot(target) in place; losses[row] = -log softmax[target]. A target below 0
    fills the row up: all of it becomes 0."""
    row = tl.program_id(0).to(tl.int64)
    start, target = logits + row * stride, tl.load(targets + row)
    counts = tl.where(target < 0, 0.0, 1.0)
    at_target = tl.load(start + tl.maximum(target, 0)).to(tl.float32)
    highest = tl.full((BLOCK,), -3.4e38, tl.float32)  # not -inf, whose difference to itself is no number
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, WORDS, BLOCK):
        word = first + tl.arange(0, BLOCK)
        value = tl.load(start + word, mask=word < WORDS, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, value)
        total = total * tl.exp(highest - higher) + tl.exp(value - higher)
        highest = higher
    top = tl.max(highest)
    whole = tl.sum(total * tl.exp(highest - top))
    tl.store(losses + row, tl.where(target < 0, 0.0, tl.log(whole) + top - at_target))
    for first in range(0, WORDS, BLOCK):
        word = first + tl.arange(0, BLOCK)
        value = tl.load(start + word, mask=word < WORDS, other=-float("inf")).to(tl.float32)
        share = tl.exp(value - top) / whole - tl.where(word == target, 1.0, 0.0)
        tl.store(start + word, share * counts, mask=word < WORDS)
