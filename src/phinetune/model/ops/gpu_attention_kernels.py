"""Causal attention within short documents as Triton kernels for NVIDIA GPUs; gpu.py calls them.

    q k v of one document, one head ─► all scores in one tile ─► softmax ─► answers

A document lies in one tile, so that nothing is looped over and each number is read and written once. A program takes a
document of SHORTER + 1 … LARGE tokens, in a tile of SMALL where that holds it, and leaves every other one, an empty one
too, to others. A head's WIDTH numbers are filled up to WIDE, a power of 2: cutting them into parts that fill up less
read the same and, with parts of 16, came out wrong on an H200 (Triton 3.6). Logarithms are to base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _attend(
    q, k, v, answers, log_sums, start, length, head, scale, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, column = tl.arange(0, BLOCK), tl.arange(0, WIDE)
    token = start.to(tl.int64) + place
    inside = (place[:, None] < length) & (column[None, :] < WIDTH)
    at_query = (token * HEADS + head)[:, None] * WIDTH + column[None, :]
    at_key = (token * KV_HEADS + head // (HEADS // KV_HEADS))[:, None] * WIDTH + column[None, :]
    query = tl.load(q + at_query, mask=inside, other=0.0)
    key = tl.load(k + at_key, mask=inside, other=0.0)
    scores = tl.dot(query, tl.trans(key)) * scale
    # What lies beyond the document comes after all its queries: one condition keeps both out, and spares one key a row.
    scores = tl.where(place[:, None] >= place[None, :], scores, -float("inf"))
    highest = tl.max(scores, 1)
    p = tl.exp2(scores - highest[:, None])
    total = tl.sum(p, 1)
    value = tl.load(v + at_key, mask=inside, other=0.0)
    answer = tl.dot(p.to(value.dtype), value) / total[:, None]
    tl.store(answers + at_query, answer.to(value.dtype), mask=inside)
    tl.store(log_sums + token * HEADS + head, highest + tl.log2(total), mask=place < length)


@triton.jit(do_not_specialize=["scale"])
def attend(
    q, k, v, bounds, answers, log_sums, scale, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr,
    WIDE: tl.constexpr, SHORTER: tl.constexpr, SMALL: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """A program a query head and document: answers [T, HEADS, WIDTH], and log2 of softmax's sums [T, HEADS]. `scale`
    is what scores are multiplied by, times log2(e)."""
    head, document = tl.program_id(0), tl.program_id(1)
    start = tl.load(bounds + document)
    length = tl.load(bounds + document + 1) - start
    if (length > SHORTER) & (length <= SMALL):
        _attend(q, k, v, answers, log_sums, start, length, head, scale, HEADS, KV_HEADS, WIDTH, WIDE, SMALL)
    if SMALL < LARGE:  # noqa: SIM102 (known when compiled, unlike the next)
        if (length > SMALL) & (length <= LARGE):
            _attend(q, k, v, answers, log_sums, start, length, head, scale, HEADS, KV_HEADS, WIDTH, WIDE, LARGE)


@triton.jit
def _attend_backward(
    g, q, k, v, answers, log_sums, g_q, g_k, g_v, start, length, head, scale, slope, HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, column = tl.arange(0, BLOCK), tl.arange(0, WIDE)
    token = start.to(tl.int64) + place
    inside = (place[:, None] < length) & (column[None, :] < WIDTH)
    at_query = (token * HEADS + head)[:, None] * WIDTH + column[None, :]
    at_key = (token * KV_HEADS + head // (HEADS // KV_HEADS))[:, None] * WIDTH + column[None, :]
    query = tl.load(q + at_query, mask=inside, other=0.0)
    key = tl.load(k + at_key, mask=inside, other=0.0)
    value = tl.load(v + at_key, mask=inside, other=0.0)
    upstream = tl.load(g + at_query, mask=inside, other=0.0)
    answer = tl.load(answers + at_query, mask=inside, other=0.0)
    along = tl.sum(upstream.to(tl.float32) * answer.to(tl.float32), 1)
    log_sum = tl.load(log_sums + token * HEADS + head, mask=place < length, other=0.0)
    scores = tl.dot(query, tl.trans(key)) * scale
    p = tl.where(place[:, None] >= place[None, :], tl.exp2(scores - log_sum[:, None]), 0.0)
    g_p = tl.dot(upstream, tl.trans(value))
    # Queries beyond the document have no gradient, and so give none.
    tl.store(g_v + at_query, tl.dot(tl.trans(p.to(query.dtype)), upstream).to(query.dtype), mask=inside)
    g_scores = (p * (g_p - along[:, None]) * slope).to(query.dtype)
    tl.store(g_q + at_query, tl.dot(g_scores, key).to(query.dtype), mask=inside)
    tl.store(g_k + at_query, tl.dot(tl.trans(g_scores), query).to(query.dtype), mask=inside)


@triton.jit(do_not_specialize=["scale", "slope"])
def attend_backward(
    g, q, k, v, bounds, answers, log_sums, g_q, g_k, g_v, scale, slope, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, SHORTER: tl.constexpr, SMALL: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """g [T, HEADS, WIDTH] -> g_q, g_k, g_v, all [T, HEADS, WIDTH]: a key head's are the sums over its query heads.

    `slope` is what scores are multiplied by, `scale` that times log2(e).
    """
    head, document = tl.program_id(0), tl.program_id(1)
    start = tl.load(bounds + document)
    length = tl.load(bounds + document + 1) - start
    if (length > SHORTER) & (length <= SMALL):
        _attend_backward(
            g, q, k, v, answers, log_sums, g_q, g_k, g_v, start, length, head, scale, slope, HEADS, KV_HEADS, WIDTH,
            WIDE, SMALL,
        )  # fmt: skip
    if SMALL < LARGE:  # noqa: SIM102 (known when compiled, unlike the next)
        if (length > SMALL) & (length <= LARGE):
            _attend_backward(
                g, q, k, v, answers, log_sums, g_q, g_k, g_v, start, length, head, scale, slope, HEADS, KV_HEADS,
                WIDTH, WIDE, LARGE,
            )  # fmt: skip
