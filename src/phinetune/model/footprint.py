"""The memory of a training run, part by part, from sizes alone. No tensor is made.

    program | weights | adapter | gradients | optimizer | activations | logits | allocator

The peak is that of the largest training step, or of the check before the first step (training/check.py), which runs
transformers' plain forward on the beginning of the longest pair and keeps three times as much a token. Activations are
counted tensor by tensor as layers.py, fused.py, elementwise.py and the files of attend.py save them for the way back;
tests/model/test_footprint.py holds the count against what autograd really keeps. What could only be measured is a
constant below, with its measurement; `benchmarks/plan_accuracy.py` measures whole runs against the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from phinetune.model.document_blocks import KEEP_UP_TO, SCORES_AT_ONCE, divide
from phinetune.model.shape import AdapterShape, ModelShape

Attention = Literal["blocks", "bands", "flash"]  # documents.py; bands.py; a fused kernel of a GPU, which all keep alike

# Tokens of a pair that the check before the first step looks at: the plain way keeps 2.6 times as much a token, and for
# 512 of Phi-2 took 9.8 GB, more than training in rows of as many.
CHECKED_TOKENS = 192

_FP32 = 4
_ADAM_MOMENTS = 2
_LOGITS_AT_ONCE, _LOGITS_ON_GPU = 1 << 24, 1 << 26  # elements, as loss.py makes them

# Python with torch, transformers and PEFT: 0.37 GB when imported, and 0.5 GB with a tokenizer of 49,152 words and the
# kernels of the products made (SmolLM2, a step of 8 tokens). On a GPU: what CUDA takes for itself; not measured here.
_PROGRAM_CPU = 500_000_000
_PROGRAM_GPU = 500_000_000
# oneDNN makes code for every shape of a product, some 80 of them for a row of another length, and keeps so much of it
# (device.bound_kernel_caches): SmolLM2, rows of 8 pairs, grew by 0.04 GB a step at first and by 0.24 GB in 40 steps.
# Only for 16-bit numbers on a CPU; in fp32 another library computes, and nothing grows.
_KERNELS_OF_A_LENGTH, _KERNELS_KEPT = 35_000_000, 240_000_000
# What the C library holds beyond the tensors in use, and what the way back holds for a moment, as a share of the
# activations. SmolLM2, rows of 512 to 2048 tokens: 0.27 to 0.42 in bf16, 0.36 to 0.42 in fp32; Phi-2, 512 tokens: 0.26.
# torch's allocator for GPUs holds whole blocks; its share is a guess: 4 x 512 tokens of Phi-2 came to 1.04 of the peak,
# which was then that of the check.
_ALLOCATOR_CPU = 0.35
_ALLOCATOR_GPU = 0.10
# What one layer frees seldom serves the next: torch asks the C library for aligned buffers, and glibc 2.36 puts none
# where one of its own size was. Where layers are recomputed it came to hold 2.4 to 2.8 times what they keep, beside the
# tensors in use: SmolLM2 with 10 and 30 layers, rows of 2048 and 4096 tokens, fp32 and bf16.
_ALLOCATOR_RECOMPUTING = 2.5
# Bytes that transformers' forward with PEFT's adapters keeps, against ours: 2.6 (llama) and 2.5 (phi) in 16-bit
# numbers, 2.0 and 2.4 in fp32, on toys of both. PEFT casts the input of every adapter to fp32 on its own.
_PLAIN_16_BIT, _PLAIN_FP32 = 2.6, 2.2
# Bytes of a logit in the plain loss besides its own: an fp32 copy, and its log-softmax or gradient.
_PLAIN_LOGIT = 8


@dataclass(frozen=True)
class Row:
    """A row that goes through the model: the tokens of each document, and the answer tokens of all."""

    lengths: tuple[int, ...]
    answer_tokens: int

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class Footprint:
    """Bytes by part at the moment of the peak. `moment` says which that is."""

    program: int
    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    allocator: int
    moment: Literal["training step", "check"]

    @property
    def parts(self) -> dict[str, int]:
        names = ("program", "weights", "adapter", "gradients", "optimizer", "activations", "logits", "allocator")
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Computing:
    """How the numbers are computed: bytes of a base number, where, with which attention, recomputing or not."""

    itemsize: int
    on_gpu: bool
    attention: Attention
    recompute: bool

    @property
    def has_kernels(self) -> bool:
        """Whether the passes of a step are those of ops/gpu.py, for which the same GPUs are wanted."""
        return self.attention == "flash"


def footprint(
    shape: ModelShape,
    adapter: AdapterShape,
    rows: Sequence[Row],
    longest: Row,
    computing: Computing,
    row_lengths: int = 1,
) -> Footprint:
    """The peak of a run whose largest rows are among `rows` and whose longest pair alone is `longest`.

    `row_lengths` is how many different numbers of tokens its rows have.
    """
    step = max((step_footprint(shape, adapter, row, computing) for row in rows), key=lambda each: each.total)
    if not computing.on_gpu and computing.itemsize < _FP32:
        kernels = min(_KERNELS_KEPT, (row_lengths - 1) * _KERNELS_OF_A_LENGTH)
        step = replace(step, program=step.program + kernels)
    check = check_footprint(shape, adapter, longest, computing)
    return max(step, check, key=lambda each: each.total)


def step_footprint(shape: ModelShape, adapter: AdapterShape, row: Row, computing: Computing) -> Footprint:
    """A training step at its peak, on the way back: nothing of the row has been given back, all gradients are there.

    The optimizer is AdamW with two moments in fp32 (Loshchilov and Hutter, 2019), for the adapter alone.
    """
    if shape.is_fast:
        kept = kept_bytes(shape, adapter, row, computing)
    else:
        kept = _plain_bytes(shape, adapter, row, computing)
    if shape.head_is_last:
        # loss.py makes one buffer of this many logits, whatever the row holds, and the gradient of what the head reads.
        at_once = _LOGITS_ON_GPU if computing.on_gpu else _LOGITS_AT_ONCE
        logits = max(at_once, shape.vocabulary) * computing.itemsize
        logits += row.answer_tokens * shape.hidden * computing.itemsize
    else:
        logits = row.answer_tokens * shape.vocabulary * (computing.itemsize + _PLAIN_LOGIT)
    return Footprint(
        program=_PROGRAM_GPU if computing.on_gpu else _PROGRAM_CPU,
        weights=shape.parameters * computing.itemsize,
        adapter=_adapter_bytes(adapter, computing),
        # A recorded graph (graphs.py) makes its own and adds them to those that stay.
        gradients=adapter.parameters * _FP32 * (2 if computing.has_kernels else 1),
        optimizer=adapter.parameters * _FP32 * _ADAM_MOMENTS,
        activations=kept,
        logits=logits,
        allocator=_allocator_bytes(kept, _moment_bytes(shape, row, computing), computing),
        moment="training step",
    )


def check_footprint(shape: ModelShape, adapter: AdapterShape, longest: Row, computing: Computing) -> Footprint:
    """The check before the first step at its peak: the plain way, forth and back, on the longest pair's beginning.

    Beside it stand the gradients of one pass and the vector of another, in fp32, and the optimizer; nothing is
    recomputed, because the model is in evaluation mode.
    """
    computing = replace(computing, recompute=False)
    longest = Row((min(longest.tokens, CHECKED_TOKENS),), min(longest.answer_tokens, CHECKED_TOKENS))
    kept = _plain_bytes(shape, adapter, longest, computing)
    share = _ALLOCATOR_GPU if computing.on_gpu else _ALLOCATOR_CPU / 2
    return Footprint(
        program=_PROGRAM_GPU if computing.on_gpu else _PROGRAM_CPU,
        weights=shape.parameters * computing.itemsize,
        adapter=_adapter_bytes(adapter, computing),
        gradients=2 * adapter.parameters * _FP32,
        optimizer=adapter.parameters * _FP32 * _ADAM_MOMENTS,
        activations=kept,
        logits=longest.answer_tokens * shape.vocabulary * (computing.itemsize + _PLAIN_LOGIT),
        allocator=int(kept * share),
        moment="check",
    )


def _allocator_bytes(kept: int, moment: int, computing: Computing) -> int:
    if computing.recompute and not computing.on_gpu:
        return int(kept * _ALLOCATOR_RECOMPUTING) + moment
    return max(int(kept * (_ALLOCATOR_GPU if computing.on_gpu else _ALLOCATOR_CPU)), moment)


def _adapter_bytes(adapter: AdapterShape, computing: Computing) -> int:
    """The adapter, and in the processor's memory the copy that a run goes back to or ends with."""
    return adapter.parameters * _FP32 * (1 if computing.on_gpu else 2)


def kept_bytes(shape: ModelShape, adapter: AdapterShape, row: Row, computing: Computing) -> int:
    """Bytes that our layers keep for the way back.

    With recomputation (Chen et al., 2016) the input of every layer, and all of the one layer being recomputed.
    """
    inner = _layer_bytes(shape, adapter, row, computing, row.tokens)
    if computing.recompute:
        return inner + shape.layers * row.tokens * shape.hidden * computing.itemsize
    # The last layer computes the places that predict an answer token, and no others, once attention is done. The last
    # norm keeps what it reads of these; the first norm reads what needs no gradient, and keeps nothing.
    last = _layer_bytes(shape, adapter, row, computing, row.answer_tokens)
    ends = (row.answer_tokens - row.tokens) * shape.hidden * computing.itemsize
    if computing.attention == "flash":  # and its answers at all places, which in other layers are the next one's input
        ends += row.tokens * shape.heads * shape.head_dim * computing.itemsize
    angles = row.tokens * shape.head_dim * _FP32  # cosines and sines, shared by all layers
    return (shape.layers - 1) * inner + last + ends + angles


def _layer_bytes(shape: ModelShape, adapter: AdapterShape, row: Row, computing: Computing, after: int) -> int:
    """One layer, of which `after` places go on behind attention.

    LoraGroup keeps its input, x Aᵀ (r numbers an adapted layer), and its A and B in the base's number format; norms
    and gates keep what they read.
    """
    n, f, tokens = shape.hidden, shape.intermediate, row.tokens
    queries = shape.heads * shape.head_dim
    behind = {"o_proj", "dense", "gate_proj", "up_proj", "down_proj", "fc2"}
    low = sum(adapter.r * (after if layer.name in behind else tokens) for layer in adapter.layers)
    copies = sum(adapter.r * (layer.inputs + layer.outputs) for layer in adapter.layers)
    numbers = tokens * 2 * n + after * queries + low + copies  # input, its norm; what attention gives
    if shape.is_phi:
        numbers += after * (1 if computing.has_kernels else 2) * f  # before gelu; after it where it is kept
        in_fp32 = 2 * tokens  # mean and 1 / deviation of the norm
    else:
        numbers += after * (2 * n + 3 * f)  # second residual and its norm; gate, up and their product
        in_fp32 = tokens + after
    return numbers * computing.itemsize + in_fp32 * _FP32 + _attention_bytes(shape, row, computing)


def _attention_bytes(shape: ModelShape, row: Row, computing: Computing) -> int:
    """What attention keeps in one layer.

    Flash and bands: queries, keys and values in the base's format and a sum per head (Dao, 2023); the answers are kept
    by the next layer anyway. Blocks: a copy of queries, keys and values in fp32, padded to the
    longest document of a block, and the probabilities of documents of up to 128 tokens.
    """
    parts = shape.heads + 2 * shape.kv_heads
    if computing.attention != "blocks":
        return row.tokens * (parts * shape.head_dim * computing.itemsize + shape.heads * _FP32)
    places = probabilities = 0
    for members in divide(row.lengths, shape.heads * shape.head_dim):
        longest = row.lengths[members[-1]]
        places += len(members) * longest
        if longest <= KEEP_UP_TO:
            probabilities += len(members) * shape.heads * longest**2
    return (places * parts * shape.head_dim + probabilities) * _FP32


def _moment_bytes(shape: ModelShape, row: Row, computing: Computing) -> int:
    """What one layer holds for a moment on the way back: the scores, probabilities and their gradients of a block
    that keeps none, and the gradients of the widest layers."""
    scores = 0
    if computing.attention == "blocks":
        of_a_document = max(shape.heads * length**2 for length in row.lengths)
        scores = 3 * _FP32 * min(len(row.lengths) * of_a_document, max(SCORES_AT_ONCE, of_a_document // shape.kv_heads))
    return scores + 4 * row.tokens * shape.intermediate * computing.itemsize


def _plain_bytes(shape: ModelShape, adapter: AdapterShape, row: Row, computing: Computing) -> int:
    """What transformers' forward with PEFT's adapters keeps."""
    ratio = _PLAIN_FP32 if computing.itemsize == _FP32 else _PLAIN_16_BIT
    return int(ratio * kept_bytes(shape, adapter, row, replace(computing, attention="blocks")))
