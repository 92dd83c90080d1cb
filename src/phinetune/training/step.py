"""One optimizer step over micro-batches, weighted by answer tokens.

    micro-batch 1   loss_sum₁ ──► backward(loss_sum₁ / N)
    micro-batch 2   loss_sum₂ ──► backward(loss_sum₂ / N)      N = answer tokens of the whole step
                                          └──► clip ──► AdamW

Every answer token weighs the same however the examples are cut into micro-batches, so 4 x 4, 16 x 1 and 1 x 16
take the same step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from phinetune.errors import TrainingError
from phinetune.model.rows import RowLoss
from phinetune.tokens.batch import Batch

_GROW_AFTER = 200
_LARGEST_SCALE = 2.0**16


@dataclass
class LossScale:
    """Keeps small fp16 gradients from vanishing: the loss is multiplied by `value`, the gradients divided.

    Halved when gradients overflow, doubled after 200 steps without an overflow. 1 and still for bf16 and fp32,
    whose range needs no help.
    """

    value: float = 1.0
    good_steps: int = 0

    @classmethod
    def for_dtype(cls, dtype: torch.dtype) -> LossScale:
        return cls(_LARGEST_SCALE if dtype == torch.float16 else 1.0)

    @property
    def can_shrink(self) -> bool:
        return self.value > 1

    def shrink(self) -> None:
        self.value, self.good_steps = self.value / 2, 0

    def count_good_step(self) -> None:
        self.good_steps += 1
        if self.good_steps == _GROW_AFTER and 1 < self.value < _LARGEST_SCALE:
            self.value, self.good_steps = self.value * 2, 0


@dataclass(frozen=True)
class StepResult:
    """train_loss: mean cross-entropy per answer token in nats, before the step. tokens: all real tokens."""

    train_loss: float
    grad_norm: float
    tokens: int
    answer_tokens: int


def optimizer_step(
    row_loss: RowLoss,
    parameters: Sequence[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    *,
    learning_rate: float,
    max_grad_norm: float,
    seed: int,
    loss_scale: LossScale,
) -> StepResult:
    """Take one step. `seed` decides the dropout, so a step is the same whatever was computed before it.

    An fp16 overflow halves the loss scale and takes the same step again: no example is lost to it.
    Raises TrainingError when the loss or the gradients are not finite for another reason.
    """
    answer_tokens = sum(batch.answer_tokens for batch in batches)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    while True:
        torch.manual_seed(seed)
        optimizer.zero_grad(set_to_none=True)
        loss_sum = _backward(row_loss, batches, loss_scale.value / answer_tokens, parameters[0].device)
        if loss_scale.value != 1:
            torch._foreach_div_([p.grad for p in parameters if p.grad is not None], loss_scale.value)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
        if math.isfinite(grad_norm):
            break
        if not math.isfinite(loss_sum) or not loss_scale.can_shrink:
            raise TrainingError(
                "Training became unstable: the loss or its gradients are no longer numbers.",
                "Lower the learning rate (try --lr at half its value), or use --dtype fp32.",
            )
        loss_scale.shrink()
    loss_scale.count_good_step()
    optimizer.step()
    return StepResult(
        train_loss=loss_sum / answer_tokens,
        grad_norm=grad_norm,
        tokens=sum(batch.tokens for batch in batches),
        answer_tokens=answer_tokens,
    )


def validation_loss(model: torch.nn.Module, row_loss: RowLoss, batches: Sequence[Batch]) -> float:
    """Mean cross-entropy per answer token in nats over all batches, without dropout."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        losses = [_loss(row_loss, batch.to(device)) for batch in batches]
    model.train(was_training)
    return float(torch.stack(losses).sum()) / sum(batch.answer_tokens for batch in batches)


def _backward(row_loss: RowLoss, batches: Sequence[Batch], weight: float, device: torch.device) -> float:
    losses = []
    for batch in batches:
        loss = _loss(row_loss, batch.to(device))
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return float(torch.stack(losses).sum())


def _loss(row_loss: RowLoss, batch: Batch) -> torch.Tensor:
    return row_loss(batch.ids, batch.positions, batch.targets, batch.predictors, batch.lengths)
