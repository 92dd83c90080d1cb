"""One optimizer step over micro-batches, weighted by answer tokens.

    micro-batch 1   loss_sum₁ ──► backward(loss_sum₁ / N)
    micro-batch 2   loss_sum₂ ──► backward(loss_sum₂ / N)      N = answer tokens of the whole step
                                          └──► clip ──► AdamW

Every answer token weighs the same however the examples are cut into micro-batches, so 4 x 4, 16 x 1 and 1 x 16
take the same step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from phinetune.model.graphs import GraphedRows
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

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.train_loss) and math.isfinite(self.grad_norm)


def make_optimizer(parameters: Sequence[torch.nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW with its moments in place, so that a step allocates nothing: it is taken whole or not at all."""
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay, fused=True)
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def step_gradients(
    row_loss: RowLoss,
    parameters: Sequence[torch.nn.Parameter],
    batches: Sequence[Batch],
    *,
    max_grad_norm: float,
    seed: int,
    loss_scale: LossScale,
) -> StepResult:
    """Leave the clipped gradients of a step in the parameters. `seed` decides the dropout, so a step is the same
    whatever was computed before it.

    An fp16 overflow halves the loss scale and computes the same step again: no example is lost to it. Where the loss
    itself is no number, or its gradients are none at any scale, the scale is not at fault and stays as it was; the
    result is then not finite, and the step must not be taken.
    """
    answer_tokens = sum(batch.answer_tokens for batch in batches)
    scale, good_steps = loss_scale.value, loss_scale.good_steps
    while True:
        torch.manual_seed(seed)
        _clear_gradients(parameters)
        loss = _backward(row_loss, batches, loss_scale.value / answer_tokens, parameters[0].device)
        if loss_scale.value != 1:
            torch._foreach_div_([p.grad for p in parameters if p.grad is not None], loss_scale.value)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        loss_sum, grad_norm = float(loss), float(norm)  # only now: a GPU is told all of this before it is waited for
        if math.isfinite(grad_norm) or not math.isfinite(loss_sum) or not loss_scale.can_shrink:
            break
        loss_scale.shrink()
    result = StepResult(
        train_loss=loss_sum / answer_tokens,
        grad_norm=grad_norm,
        tokens=sum(batch.tokens for batch in batches),
        answer_tokens=answer_tokens,
    )
    if result.is_finite:
        loss_scale.count_good_step()
    else:
        loss_scale.value, loss_scale.good_steps = scale, good_steps
    return result


def move_weights(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Move the weights by the gradients that `step_gradients` left."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()


def _clear_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Zeros on a CPU; none elsewhere, where graphs.py keeps its own.

    Gradients made by a step stand where large buffers were just freed, and none of that size fits there again: 4 x 512
    tokens of SmolLM2, recomputed in fp32, came to 3.08 GB, with gradients that stay to 2.23.
    """
    if parameters[0].device.type != "cpu":
        drop_gradients(parameters)
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        else:
            parameter.grad.zero_()


def drop_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout; the model is left as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def validation_loss(model: torch.nn.Module, row_loss: RowLoss, batches: Sequence[Batch]) -> float:
    """Mean cross-entropy per answer token in nats over all batches, without dropout."""
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        losses = [row_loss(batch.to(device)) for batch in batches]
    return float(torch.stack(losses).sum()) / sum(batch.answer_tokens for batch in batches)


def _backward(row_loss: RowLoss, batches: Sequence[Batch], weight: float, device: torch.device) -> torch.Tensor:
    return torch.stack([_add_gradients(row_loss, batch, weight, device) for batch in batches]).sum()


def _add_gradients(row_loss: RowLoss, batch: Batch, weight: float, device: torch.device) -> torch.Tensor:
    """The summed loss of a row. Nothing else of its way forth is left: a graph could not be recorded beside it."""
    if isinstance(row_loss, GraphedRows) and row_loss.takes(batch.lengths):
        return row_loss.add_gradients(batch, weight)
    loss = row_loss(batch.to(device))
    (loss * weight).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def step_seed(seed: int, step: int) -> int:
    """What decides the dropout of a step."""
    # Consecutive seeds of the generator give unrelated streams; the product keeps runs of different seeds apart.
    return seed * 1_000_003 + step
