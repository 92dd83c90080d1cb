"""Before the first step: which way rows go through the model, proven on two pairs of the sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from phinetune.errors import SettingsError, TrainingError
from phinetune.events import Warned
from phinetune.model import lora
from phinetune.model.attention import cannot_confine, confined_to_documents
from phinetune.model.footprint import CHECKED_TOKENS
from phinetune.model.graph_sizes import mostly_short
from phinetune.model.graphs import GraphedRows, can_record
from phinetune.model.loss import head_is_last
from phinetune.model.out_of_memory import is_out_of_memory, release_memory
from phinetune.model.rows import FastRowLoss, RowLoss, fast_row_loss, plain_row_loss
from phinetune.tokens.batch import lay_out
from phinetune.tokens.encode import Example
from phinetune.training.room import does_not_fit
from phinetune.training.step import drop_gradients, evaluating

# How far two ways of computing one loss may lie apart, relative and in nats per token, and how far their gradients,
# relative. Short formats round every product; on SmolLM2 in bf16 two right ways differed by 0.001 and 0.08.
_LOSSES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
_CHECKED_AT_LEAST = 24  # tokens of a pair
_GRADIENTS = {torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.3}


@dataclass(frozen=True)
class _Pass:
    """The summed loss of some examples, and its gradient by every trained parameter, in one vector."""

    loss: float
    gradient: torch.Tensor


@contextmanager
def proven_row_loss(model: PeftModel, examples: Sequence[Example]) -> Iterator[tuple[RowLoss, Warned | None]]:
    """The fast way where the model has one and it agrees with transformers' forward here, else the plain one.

    Loss and gradient are compared, without dropout. A warning goes with the plain way where the fast one should have
    worked. Raises TrainingError when the base model gives no usable numbers or does not fit in memory, SettingsError
    for pairs longer than its window, and ModelError when a pair would see its neighbours in a row.
    """
    by_length = sorted(examples, key=lambda example: len(example.ids))
    _refuse_beyond_window(model, by_length[-1])
    way, warning = _proven(model, by_length[0], by_length[-1])
    if torch.cuda.is_available():  # what the plain way took in small pieces, rows find again in large ones
        torch.cuda.empty_cache()
    with way as row_loss:
        yield row_loss, warning


def _proven(
    model: PeftModel, shortest: Example, longest: Example
) -> tuple[AbstractContextManager[RowLoss], Warned | None]:
    """The fast way or the plain one, with the warning that goes with it.

    All passes are gone when it returns: held through the run, their vectors were three times the adapter in fp32,
    0.28 GB of Phi-2.
    """
    warning = None
    pair, alone = _pair_alone(model, shortest, longest)
    expected = _sum(alone, 1)
    if not math.isfinite(expected.loss):
        raise TrainingError(
            "The base model gives no usable numbers in this number format, before any training.",
            "Try --dtype fp32. If that does not help either, the model file is damaged: get it again.",
        )
    tokens = sum(example.answer_tokens for example in pair)
    if (fast := fast_row_loss(model)) is not None:
        times = sorted({1, _until_mostly_short(model, pair)})
        if all(_agrees_in_a_row(model, fast, pair, alone, each) for each in times):
            return nullcontext(_by_graphs(model, fast, pair, expected, tokens) or fast), None
        warning = Warned(
            "slow_path",
            "The fast way of computing this model does not give the numbers of the plain one on this device, so the "
            "plain one is taken: the result is the same, but training is slower.",
        )
    if _head_is_last(model, pair[0]):
        with plain_row_loss(model, fused=True, through_head=True) as through_head:
            if _agrees_here(model, lambda: _pass(model, through_head, pair), expected, tokens):
                return plain_row_loss(model, fused=True, through_head=True), warning
    with plain_row_loss(model, fused=True) as plain:
        if not _agree(model, _pass(model, plain, pair), expected, tokens):
            raise cannot_confine(model.get_base_model())
    return plain_row_loss(model, fused=True), warning


def _head_is_last(model: PeftModel, example: Example) -> bool:
    base: PreTrainedModel = model.get_base_model()
    with confined_to_documents(base), evaluating(model):
        return head_is_last(base, lay_out([example]).to(base.device))


def _pair_alone(model: PeftModel, shortest: Example, longest: Example) -> tuple[list[Example], list[_Pass]]:
    """Two pairs, and what the plain way makes of each: of fewer of their tokens where memory runs out.

    Raises TrainingError where it does so all the same.
    """
    for tokens in (CHECKED_TOKENS, _CHECKED_AT_LEAST):
        pair = [_beginning(example, tokens) for example in (shortest, longest)]
        try:
            return pair, _each_alone(model, pair)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
    raise does_not_fit(model, longest)


def _until_mostly_short(model: PeftModel, pair: Sequence[Example]) -> int:
    """How often the shorter one has to stand before the longer one for the row to take a GPU's kernels for short
    documents; 1 where it does so anyway, or none does."""
    shorter, longer = (len(example.ids) for example in pair)
    if not can_record(model) or mostly_short([shorter, longer]):
        return 1
    times = 2 * -(-longer // shorter)
    return times if mostly_short([shorter] * times + [longer]) else 1


def _agrees_in_a_row(
    model: PeftModel, fast: FastRowLoss, pair: Sequence[Example], alone: Sequence[_Pass], times: int
) -> bool:
    """Whether a row with the first of two pairs so many times gives what they give alone."""
    row = [pair[0]] * times + [pair[1]]
    tokens = sum(example.answer_tokens for example in row)
    return _agrees_here(model, lambda: _pass(model, fast, row), _sum(alone, times), tokens)


def _sum(alone: Sequence[_Pass], times: int) -> _Pass:
    shorter, longer = alone
    return _Pass(times * shorter.loss + longer.loss, times * shorter.gradient + longer.gradient)


def _beginning(example: Example, tokens: int) -> Example:
    """The pair up to so many tokens, some of them of the answer."""
    if len(example.ids) <= tokens:
        return example
    return replace(example, ids=example.ids[:tokens], prompt_length=min(example.prompt_length, tokens // 2))


def _each_alone(model: PeftModel, examples: Sequence[Example]) -> list[_Pass]:
    with plain_row_loss(model) as plain:
        return [_pass(model, plain, [example]) for example in examples]


def _pass(model: PeftModel, row_loss: RowLoss, examples: Sequence[Example]) -> _Pass:
    """Forth and back through one row of the examples, without dropout; the model is left as it was."""
    parameters = [parameter for _, parameter in lora.trainable(model)]
    row = lay_out(examples).to(parameters[0].device)
    with evaluating(model):
        loss = row_loss(row)
        # The mean, as in training: a sum of hundreds of tokens may leave fp16's range.
        gradients = torch.autograd.grad(loss / row.answer_tokens, parameters)
    vector = torch.cat([gradient.detach().flatten().float() for gradient in gradients])
    return _Pass(float(loss.detach()), vector * row.answer_tokens)


def _by_graphs(
    model: PeftModel, fast: FastRowLoss, examples: Sequence[Example], expected: _Pass, tokens: int
) -> GraphedRows | None:
    """The fast way by recorded graphs, where the device has them and they give the same numbers."""
    if not can_record(model):
        return None
    rows = GraphedRows(model, fast)
    if rows.takes([len(example.ids) for example in examples]) and not _agrees_here(
        model, lambda: _recorded_pass(model, rows, examples), expected, tokens
    ):
        return None
    return rows


def _recorded_pass(model: PeftModel, rows: GraphedRows, examples: Sequence[Example]) -> _Pass:
    parameters = [parameter for _, parameter in lora.trainable(model)]
    row = lay_out(examples)
    try:
        with evaluating(model):
            drop_gradients(parameters)
            loss = rows.add_gradients(row, 1 / row.answer_tokens)
            vector = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    finally:
        drop_gradients(parameters)
    return _Pass(float(loss), vector * row.answer_tokens)


def _agrees_here(model: PeftModel, compute: Callable[[], _Pass], expected: _Pass, tokens: int) -> bool:
    """Whether a way works on this device at all, and gives the plain way's numbers."""
    try:
        return _agree(model, compute(), expected, tokens)
    except RuntimeError as error:  # a kernel that this device or build does not have
        if is_out_of_memory(error):
            raise
        return False


def _agree(model: PeftModel, found: _Pass, expected: _Pass, tokens: int) -> bool:
    dtype = model.get_base_model().dtype
    if not abs(found.loss - expected.loss) <= _LOSSES[dtype] * (abs(expected.loss) + tokens):
        return False
    # What a model already knows has a gradient of rounding errors alone.
    slack = _GRADIENTS[dtype] * (float(expected.gradient.norm()) + 1e-3 * tokens)
    return float((found.gradient - expected.gradient).norm()) <= slack


def _refuse_beyond_window(model: PeftModel, longest: Example) -> None:
    config = model.get_base_model().config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and len(longest.ids) > window:
        raise SettingsError(
            f"Row {longest.row} has {len(longest.ids)} tokens, and this model looks back no further than {window}.",
            f"Keep pairs shorter with --max-length {window}.",
        )
