"""Causal attention within short documents as Triton kernels for NVIDIA GPUs; gpu.py calls them.

    q k v of one document, one head ─► turn q and k ─► scores, all at once ─► softmax ─► answers

A document lies in one tile, so nothing is looped over and nothing is kept but a sum a query and head. A head's WIDTH
numbers are taken in parts that powers of 2 hold: queries and keys as the two HALFs that are turned together (Su et
al., 2021, "RoFormer") and the REST that is not, values as their first WIDE numbers and the TAIL; REST and TAIL are 0
where there is none. Logarithms are to base 2. A program takes a document of SHORTER + 1 … BLOCK tokens and leaves
every other one, an empty one too, to others.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _load(x, token, inside, STRIDE: tl.constexpr, COUNT: tl.constexpr, ALL: tl.constexpr):
    """[tokens, ALL]: COUNT numbers from x on of every token's STRIDE; 0 beyond them and the document."""
    column = tl.arange(0, ALL)
    place = token[:, None] * STRIDE + column[None, :]
    return tl.load(x + place, mask=inside[:, None] & (column[None, :] < COUNT), other=0.0)


@triton.jit
def _store(x, value, token, inside, STRIDE: tl.constexpr, COUNT: tl.constexpr, ALL: tl.constexpr):
    column = tl.arange(0, ALL)
    place = token[:, None] * STRIDE + column[None, :]
    tl.store(x + place, value.to(x.dtype.element_ty), mask=inside[:, None] & (column[None, :] < COUNT))


@triton.jit
def _load_turned(x, token, inside, cos, sin, STRIDE: tl.constexpr, HALF: tl.constexpr, ALL_HALF: tl.constexpr):
    first = _load(x, token, inside, STRIDE, HALF, ALL_HALF).to(tl.float32)
    second = _load(x + HALF, token, inside, STRIDE, HALF, ALL_HALF).to(tl.float32)
    c = _load(cos, token, inside, HALF, HALF, ALL_HALF)
    s = _load(sin, token, inside, HALF, HALF, ALL_HALF)
    dtype = x.dtype.element_ty
    return (first * c - second * s).to(dtype), (second * c + first * s).to(dtype)


@triton.jit
def _store_turned_back(
    x, first, second, token, inside, cos, sin, STRIDE: tl.constexpr, HALF: tl.constexpr, ALL_HALF: tl.constexpr
):
    c = _load(cos, token, inside, HALF, HALF, ALL_HALF)
    s = _load(sin, token, inside, HALF, HALF, ALL_HALF)
    _store(x, first * c + second * s, token, inside, STRIDE, HALF, ALL_HALF)
    _store(x + HALF, second * c - first * s, token, inside, STRIDE, HALF, ALL_HALF)


@triton.jit
def attend(
    q, k, v, cos, sin, bounds, answers, log_sums, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr,
    SCALE: tl.constexpr, HALF: tl.constexpr, ALL_HALF: tl.constexpr, REST: tl.constexpr, WIDE: tl.constexpr,
    TAIL: tl.constexpr, SHORTER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program a query head and document: answers [T, HEADS WIDTH], log_sums [T, HEADS]."""
    head, document = tl.program_id(0), tl.program_id(1)
    start = tl.load(bounds + document)
    length = tl.load(bounds + document + 1) - start
    if (length <= SHORTER) | (length > BLOCK):
        return
    place = tl.arange(0, BLOCK)
    token, inside = start.to(tl.int64) + place, place < length
    Q_STRIDE: tl.constexpr = HEADS * WIDTH
    KV_STRIDE: tl.constexpr = KV_HEADS * WIDTH
    q += head * WIDTH
    k += head // (HEADS // KV_HEADS) * WIDTH
    v += head // (HEADS // KV_HEADS) * WIDTH
    answers += head * WIDTH
    q_first, q_second = _load_turned(q, token, inside, cos, sin, Q_STRIDE, HALF, ALL_HALF)
    k_first, k_second = _load_turned(k, token, inside, cos, sin, KV_STRIDE, HALF, ALL_HALF)
    v_wide = _load(v, token, inside, KV_STRIDE, WIDTH, WIDE)
    scores = tl.dot(q_first, tl.trans(k_first))
    scores = tl.dot(q_second, tl.trans(k_second), scores)
    if REST > 0:
        q_rest = _load(q + 2 * HALF, token, inside, Q_STRIDE, WIDTH - 2 * HALF, REST)
        k_rest = _load(k + 2 * HALF, token, inside, KV_STRIDE, WIDTH - 2 * HALF, REST)
        scores = tl.dot(q_rest, tl.trans(k_rest), scores)
    # What lies beyond the document comes after all its queries: one condition keeps both out, and spares one key a row.
    scores = tl.where(place[:, None] >= place[None, :], scores * (SCALE * _LOG2_E), -float("inf"))
    highest = tl.max(scores, 1)
    p = tl.exp2(scores - highest[:, None])
    total = tl.sum(p, 1)
    tl.store(log_sums + token * HEADS + head, highest + tl.log2(total), mask=inside)
    p = p.to(v.dtype.element_ty)
    answer = tl.dot(p, v_wide) / total[:, None]
    _store(answers, answer, token, inside, Q_STRIDE, WIDTH, WIDE)
    if TAIL > 0:
        answer = tl.dot(p, _load(v + WIDE, token, inside, KV_STRIDE, WIDTH - WIDE, TAIL)) / total[:, None]
        _store(answers + WIDE, answer, token, inside, Q_STRIDE, WIDTH - WIDE, TAIL)


@triton.jit
def attend_backward(
    g, q, k, v, cos, sin, bounds, answers, log_sums, g_q, g_k, g_v, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr, SCALE: tl.constexpr, HALF: tl.constexpr, ALL_HALF: tl.constexpr, REST: tl.constexpr,
    WIDE: tl.constexpr, TAIL: tl.constexpr, SHORTER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program a key head and document: g [T, HEADS WIDTH] -> g_q, g_k and g_v, over the query heads of the key head.

    Queries beyond the document have no gradient, and so give none.
    """
    kv_head, document = tl.program_id(0), tl.program_id(1)
    start = tl.load(bounds + document)
    length = tl.load(bounds + document + 1) - start
    if (length <= SHORTER) | (length > BLOCK):
        return
    place = tl.arange(0, BLOCK)
    token, inside = start.to(tl.int64) + place, place < length
    causal = place[:, None] >= place[None, :]
    Q_STRIDE: tl.constexpr = HEADS * WIDTH
    KV_STRIDE: tl.constexpr = KV_HEADS * WIDTH
    GROUP: tl.constexpr = HEADS // KV_HEADS
    dtype = q.dtype.element_ty
    k += kv_head * WIDTH
    v += kv_head * WIDTH
    k_first, k_second = _load_turned(k, token, inside, cos, sin, KV_STRIDE, HALF, ALL_HALF)
    v_wide = _load(v, token, inside, KV_STRIDE, WIDTH, WIDE)
    g_k_first = tl.zeros((BLOCK, ALL_HALF), tl.float32)
    g_k_second = tl.zeros((BLOCK, ALL_HALF), tl.float32)
    g_v_wide = tl.zeros((BLOCK, WIDE), tl.float32)
    if REST > 0:
        k_rest = _load(k + 2 * HALF, token, inside, KV_STRIDE, WIDTH - 2 * HALF, REST)
        g_k_rest = tl.zeros((BLOCK, REST), tl.float32)
    if TAIL > 0:
        v_tail = _load(v + WIDE, token, inside, KV_STRIDE, WIDTH - WIDE, TAIL)
        g_v_tail = tl.zeros((BLOCK, TAIL), tl.float32)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        column = head * WIDTH
        q_first, q_second = _load_turned(q + column, token, inside, cos, sin, Q_STRIDE, HALF, ALL_HALF)
        g_wide = _load(g + column, token, inside, Q_STRIDE, WIDTH, WIDE)
        answer = _load(answers + column, token, inside, Q_STRIDE, WIDTH, WIDE).to(tl.float32)
        log_sum = tl.load(log_sums + token * HEADS + head, mask=inside, other=0.0)
        along = tl.sum(g_wide.to(tl.float32) * answer, 1)
        scores = tl.dot(q_first, tl.trans(k_first))
        scores = tl.dot(q_second, tl.trans(k_second), scores)
        if REST > 0:
            q_rest = _load(q + column + 2 * HALF, token, inside, Q_STRIDE, WIDTH - 2 * HALF, REST)
            scores = tl.dot(q_rest, tl.trans(k_rest), scores)
        p = tl.where(causal, tl.exp2(scores * (SCALE * _LOG2_E) - log_sum[:, None]), 0.0)
        p_low = tl.trans(p.to(dtype))
        g_p = tl.dot(g_wide, tl.trans(v_wide))
        g_v_wide = tl.dot(p_low, g_wide, g_v_wide)
        if TAIL > 0:
            g_tail = _load(g + column + WIDE, token, inside, Q_STRIDE, WIDTH - WIDE, TAIL)
            answer = _load(answers + column + WIDE, token, inside, Q_STRIDE, WIDTH - WIDE, TAIL).to(tl.float32)
            along += tl.sum(g_tail.to(tl.float32) * answer, 1)
            g_p = tl.dot(g_tail, tl.trans(v_tail), g_p)
            g_v_tail = tl.dot(p_low, g_tail, g_v_tail)

        g_scores = (p * (g_p - along[:, None])).to(dtype)
        g_first, g_second = tl.dot(g_scores, k_first) * SCALE, tl.dot(g_scores, k_second) * SCALE
        _store_turned_back(g_q + column, g_first, g_second, token, inside, cos, sin, Q_STRIDE, HALF, ALL_HALF)
        if REST > 0:
            g_rest = tl.dot(g_scores, k_rest) * SCALE
            _store(g_q + column + 2 * HALF, g_rest, token, inside, Q_STRIDE, WIDTH - 2 * HALF, REST)
        g_scores = tl.trans(g_scores)
        g_k_first = tl.dot(g_scores, q_first, g_k_first)
        g_k_second = tl.dot(g_scores, q_second, g_k_second)
        if REST > 0:
            g_k_rest = tl.dot(g_scores, q_rest, g_k_rest)

    g_k += kv_head * WIDTH
    g_v += kv_head * WIDTH
    g_k_first, g_k_second = g_k_first * SCALE, g_k_second * SCALE
    _store_turned_back(g_k, g_k_first, g_k_second, token, inside, cos, sin, KV_STRIDE, HALF, ALL_HALF)
    _store(g_v, g_v_wide, token, inside, KV_STRIDE, WIDTH, WIDE)
    if REST > 0:
        _store(g_k + 2 * HALF, g_k_rest * SCALE, token, inside, KV_STRIDE, WIDTH - 2 * HALF, REST)
    if TAIL > 0:
        _store(g_v + WIDE, g_v_tail, token, inside, KV_STRIDE, WIDTH - WIDE, TAIL)
