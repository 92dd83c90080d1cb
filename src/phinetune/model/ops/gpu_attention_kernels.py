"""Causal attention within short documents as Triton kernels for NVIDIA GPUs; gpu.py calls them.

    q k v of one document, one head ─► all scores in one tile ─► softmax ─► answers

A program takes one document and one query head. `attend` takes those of up to BLOCK tokens: nothing is looped over, and
each number is read and written once. `attend_by_blocks` takes the longer ones, block after block (Dao, 2023,
"FlashAttention-2"), which is as fast while they are few. Either leaves the other's documents, and empty ones. A head's
WIDTH numbers are filled up to WIDE, a power of 2: cut into parts that fill up less, tiles of 16 columns gave wrong
products on an H200 (Triton 3.6). Logarithms are to base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _document(bounds):
    """Where the program's document begins, and how many tokens it has."""
    start = tl.load(bounds + tl.program_id(1))
    return start.to(tl.int64), tl.load(bounds + tl.program_id(1) + 1) - start


@triton.jit
def _places(start, place, length, head, HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr):
    """Of a head's numbers at these places of the document [BLOCK, WIDE]: where they lie, and which there are."""
    column = tl.arange(0, WIDE)
    at = ((start + place) * HEADS + head)[:, None] * WIDTH + column[None, :]
    return at, (place[:, None] < length) & (column[None, :] < WIDTH)


@triton.jit(do_not_specialize=["scale"])
def attend(
    q, k, v, bounds, answers, log_sums, scale, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """answers [T, HEADS, WIDTH], and log2 of softmax's sums [T, HEADS]; `scale` is that of scores, times log2(e)."""
    start, length = _document(bounds)
    if (length > 0) & (length <= BLOCK):
        head, place = tl.program_id(0), tl.arange(0, BLOCK)
        at_query, inside = _places(start, place, length, head, HEADS, WIDTH, WIDE)
        at_key, inside = _places(start, place, length, head // (HEADS // KV_HEADS), KV_HEADS, WIDTH, WIDE)
        query = tl.load(q + at_query, mask=inside, other=0.0)
        key = tl.load(k + at_key, mask=inside, other=0.0)
        scores = tl.dot(query, tl.trans(key)) * scale
        # What lies beyond the document comes after all its queries: one condition keeps both out.
        scores = tl.where(place[:, None] >= place[None, :], scores, -float("inf"))
        highest = tl.max(scores, 1)
        p = tl.exp2(scores - highest[:, None])
        total = tl.sum(p, 1)
        value = tl.load(v + at_key, mask=inside, other=0.0)
        answer = tl.dot(p.to(value.dtype), value) / total[:, None]
        tl.store(answers + at_query, answer.to(value.dtype), mask=inside)
        tl.store(log_sums + (start + place) * HEADS + head, highest + tl.log2(total), mask=place < length)


@triton.jit(do_not_specialize=["scale"])
def attend_by_blocks(
    q, k, v, bounds, answers, log_sums, scale, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same for documents of more than BLOCK tokens."""
    start, length = _document(bounds)
    if length > BLOCK:
        head = tl.program_id(0)
        for first in range(0, length, BLOCK):
            place = first + tl.arange(0, BLOCK)
            at_query, inside = _places(start, place, length, head, HEADS, WIDTH, WIDE)
            query = tl.load(q + at_query, mask=inside, other=0.0)
            highest = tl.full((BLOCK,), -float("inf"), tl.float32)
            total = tl.zeros((BLOCK,), tl.float32)
            answer = tl.zeros((BLOCK, WIDE), tl.float32)
            for first_key in range(0, first + BLOCK, BLOCK):
                key_place = first_key + tl.arange(0, BLOCK)
                at_key, there = _places(start, key_place, length, head // (HEADS // KV_HEADS), KV_HEADS, WIDTH, WIDE)
                key = tl.load(k + at_key, mask=there, other=0.0)
                scores = tl.dot(query, tl.trans(key)) * scale
                scores = tl.where(place[:, None] >= key_place[None, :], scores, -float("inf"))
                higher = tl.maximum(highest, tl.max(scores, 1))
                p = tl.exp2(scores - higher[:, None])
                shrunk = tl.exp2(highest - higher)
                total = total * shrunk + tl.sum(p, 1)
                value = tl.load(v + at_key, mask=there, other=0.0)
                answer = tl.dot(p.to(value.dtype), value, answer * shrunk[:, None])
                highest = higher
            tl.store(answers + at_query, (answer / total[:, None]).to(query.dtype), mask=inside)
            tl.store(log_sums + (start + place) * HEADS + head, highest + tl.log2(total), mask=place < length)


@triton.jit
def _upstream(g, answers, log_sums, start, place, length, head, at_query, inside, HEADS: tl.constexpr):
    """Of the queries there: the gradients of their answers [BLOCK, WIDE], these times the answers, summed over a head's
    numbers, and log2 of softmax's sums [BLOCK]."""
    upstream = tl.load(g + at_query, mask=inside, other=0.0)
    answer = tl.load(answers + at_query, mask=inside, other=0.0)
    along = tl.sum(upstream.to(tl.float32) * answer.to(tl.float32), 1)
    log_sum = tl.load(log_sums + (start + place) * HEADS + head, mask=place < length, other=0.0)
    return upstream, along, log_sum


@triton.jit
def _probabilities(query, key, log_sum, place, key_place, scale):
    """[queries, keys], 0 where a key comes later."""
    scores = tl.dot(query, tl.trans(key)) * scale
    return tl.where(place[:, None] >= key_place[None, :], tl.exp2(scores - log_sum[:, None]), 0.0)


@triton.jit(do_not_specialize=["scale", "slope"])
def attend_backward(
    g, q, k, v, bounds, answers, log_sums, g_q, g_k, g_v, scale, slope, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """g [T, HEADS, WIDTH] -> g_q, g_k, g_v, all [T, HEADS, WIDTH]: a key head's are the sums over its query heads.

    `slope` is what scores are multiplied by, `scale` that times log2(e). Queries beyond the document have no gradient,
    and so give none.
    """
    start, length = _document(bounds)
    if (length > 0) & (length <= BLOCK):
        head, place = tl.program_id(0), tl.arange(0, BLOCK)
        at_query, inside = _places(start, place, length, head, HEADS, WIDTH, WIDE)
        at_key, inside = _places(start, place, length, head // (HEADS // KV_HEADS), KV_HEADS, WIDTH, WIDE)
        query = tl.load(q + at_query, mask=inside, other=0.0)
        key = tl.load(k + at_key, mask=inside, other=0.0)
        value = tl.load(v + at_key, mask=inside, other=0.0)
        upstream, along, log_sum = _upstream(g, answers, log_sums, start, place, length, head, at_query, inside, HEADS)
        p = _probabilities(query, key, log_sum, place, place, scale)
        g_p = tl.dot(upstream, tl.trans(value))
        tl.store(g_v + at_query, tl.dot(tl.trans(p.to(query.dtype)), upstream).to(query.dtype), mask=inside)
        g_scores = (p * (g_p - along[:, None]) * slope).to(query.dtype)
        tl.store(g_q + at_query, tl.dot(g_scores, key).to(query.dtype), mask=inside)
        tl.store(g_k + at_query, tl.dot(tl.trans(g_scores), query).to(query.dtype), mask=inside)


@triton.jit(do_not_specialize=["scale", "slope"])
def query_gradient_by_blocks(
    g, q, k, v, bounds, answers, log_sums, g_q, scale, slope, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """g_q for documents of more than BLOCK tokens: a block of queries against all keys that it sees."""
    start, length = _document(bounds)
    if length > BLOCK:
        head = tl.program_id(0)
        for first in range(0, length, BLOCK):
            place = first + tl.arange(0, BLOCK)
            at_query, inside = _places(start, place, length, head, HEADS, WIDTH, WIDE)
            query = tl.load(q + at_query, mask=inside, other=0.0)
            upstream, along, log_sum = _upstream(
                g, answers, log_sums, start, place, length, head, at_query, inside, HEADS
            )
            g_query = tl.zeros((BLOCK, WIDE), tl.float32)
            for first_key in range(0, first + BLOCK, BLOCK):
                key_place = first_key + tl.arange(0, BLOCK)
                at_key, there = _places(start, key_place, length, head // (HEADS // KV_HEADS), KV_HEADS, WIDTH, WIDE)
                key = tl.load(k + at_key, mask=there, other=0.0)
                value = tl.load(v + at_key, mask=there, other=0.0)
                p = _probabilities(query, key, log_sum, place, key_place, scale)
                g_scores = p * (tl.dot(upstream, tl.trans(value)) - along[:, None]) * slope
                g_query = tl.dot(g_scores.to(key.dtype), key, g_query)
            tl.store(g_q + at_query, g_query.to(query.dtype), mask=inside)


@triton.jit(do_not_specialize=["scale", "slope"])
def key_gradients_by_blocks(
    g, q, k, v, bounds, answers, log_sums, g_k, g_v, scale, slope, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """g_k and g_v for documents of more than BLOCK tokens: a block of keys against all queries that see it."""
    start, length = _document(bounds)
    if length > BLOCK:
        head = tl.program_id(0)
        for first_key in range(0, length, BLOCK):
            key_place = first_key + tl.arange(0, BLOCK)
            at_key, there = _places(start, key_place, length, head // (HEADS // KV_HEADS), KV_HEADS, WIDTH, WIDE)
            key = tl.load(k + at_key, mask=there, other=0.0)
            value = tl.load(v + at_key, mask=there, other=0.0)
            g_key = tl.zeros((BLOCK, WIDE), tl.float32)
            g_value = tl.zeros((BLOCK, WIDE), tl.float32)
            for first in range(first_key, length, BLOCK):
                place = first + tl.arange(0, BLOCK)
                at_query, inside = _places(start, place, length, head, HEADS, WIDTH, WIDE)
                query = tl.load(q + at_query, mask=inside, other=0.0)
                upstream, along, log_sum = _upstream(
                    g, answers, log_sums, start, place, length, head, at_query, inside, HEADS
                )
                p = _probabilities(query, key, log_sum, place, key_place, scale)
                g_value = tl.dot(tl.trans(p.to(query.dtype)), upstream, g_value)
                g_scores = p * (tl.dot(upstream, tl.trans(value)) - along[:, None]) * slope
                g_key = tl.dot(tl.trans(g_scores.to(query.dtype)), query, g_key)
            at_gradient, there = _places(start, key_place, length, head, HEADS, WIDTH, WIDE)
            tl.store(g_k + at_gradient, g_key.to(key.dtype), mask=there)
            tl.store(g_v + at_gradient, g_value.to(key.dtype), mask=there)
