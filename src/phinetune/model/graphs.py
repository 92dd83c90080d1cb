"""Forth and back through a row as one recorded CUDA graph: the processor says "again" instead of starting kernels.

    row of 16 pairs ─► filled up to a size ─► copied to where the graph reads ─► replay ─► gradients added, loss

A step of full-size Phi-2 starts some 3,200 kernels, which took the processor beside an H200 115 ms however short the
row was; 16 short pairs keep the GPU busy for 19 ms. Rows hardly ever have the same length, so they are filled up to a
few sizes: with short documents that nobody answers for, and with targets that count for nothing. The loss and its
gradient are those of the row itself. A graph is recorded when its size is first met, which takes as long as two steps
without one: sizes are coarse, because 256 tokens more cost a fiftieth of that.

What is dropped differs from step to step, though a graph repeats what was recorded: every tensor has a seed of its own,
in the order in which the recording draws them, and `GpuOps.salt` holds a number drawn for the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from phinetune.model import layers
from phinetune.model.attend import Documents, attention_kind
from phinetune.model.device import total_memory_bytes
from phinetune.model.graph_sizes import Size, may_record, size_of
from phinetune.model.ops import PlainOps, ops_for
from phinetune.model.ops.gpu import GpuOps
from phinetune.model.out_of_memory import is_out_of_memory
from phinetune.model.row import Row
from phinetune.model.row_plan import bytes_of_a_row
from phinetune.model.rows import FastRowLoss


def fill(size: Size, row: Row) -> torch.Tensor:
    """A row as the numbers of its size [size.numbers]: filled up with documents of word 0, and with targets of -1."""
    tokens, answers = row.ids.shape[1], row.targets.shape[0]
    spare = size.tokens - tokens
    added = [min(size.longest, spare - start) for start in range(0, spare, size.longest)]
    bounds = [0, *accumulate([*row.lengths, *added])]
    bounds += [bounds[-1]] * (size.documents + 1 - len(bounds))
    numbers = torch.zeros(size.numbers, dtype=torch.long)
    parts = split(size, numbers)
    parts.ids[:tokens] = row.ids[0]
    parts.positions[:tokens] = row.positions[0]
    if added:
        parts.positions[tokens:] = torch.cat([torch.arange(length) for length in added])
    parts.targets.fill_(-1)[:answers] = row.targets
    parts.predictors[:answers] = row.predictors
    parts.bounds.copy_(torch.tensor(bounds))
    return numbers


@dataclass(frozen=True)
class Parts:
    """Views of a row's numbers."""

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    predictors: torch.Tensor
    bounds: torch.Tensor


def split(size: Size, numbers: torch.Tensor) -> Parts:
    return Parts(*torch.split(numbers, [size.tokens, size.tokens, size.answers, size.answers, size.documents + 1]))


@dataclass(frozen=True)
class _Recorded:
    """A graph, where it reads a row and the weight of its loss, and where it leaves the loss."""

    graph: torch.cuda.CUDAGraph
    numbers: torch.Tensor
    weight: torch.Tensor
    loss: torch.Tensor


def can_record(model: PeftModel) -> bool:
    """Whether the fast way of the model runs by kernels that leave nothing to the processor."""
    base, device = model.get_base_model(), next(model.parameters()).device
    _, _, head_dim = layers.heads(base)
    return attention_kind(device, base.dtype, head_dim) == "flash" and isinstance(_ops(model), GpuOps)


def _ops(model: PeftModel) -> PlainOps:
    return ops_for(torch.empty(0, 1, dtype=model.get_base_model().dtype, device=next(model.parameters()).device))


class GraphedRows:
    """The fast way on a GPU, which also gives gradients by recorded graphs, as long as `records`.

    They are added up in tensors that stay, and become the parameters' own.
    """

    def __init__(self, model: PeftModel, row_loss: FastRowLoss) -> None:
        self._model = model
        self._row_loss = row_loss
        self._parameters = parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._weights = sum(p.numel() * p.element_size() for p in model.get_base_model().parameters())
        self._sums = torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
        parts = torch.split(self._sums, [parameter.numel() for parameter in parameters])
        self._gradients = [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]
        self._recorded: dict[Size, _Recorded] = {}
        self.records = True
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, row: Row) -> torch.Tensor:
        """RowLoss, without a graph."""
        return self._row_loss(row)

    def takes(self, lengths: Sequence[int]) -> bool:
        """Whether its activations are kept rather than computed again, and there is room for them twice."""
        base: PreTrainedModel = self._model.get_base_model()
        tokens = size_of(lengths, 1, is_training=True).tokens
        if not self.records:
            return False
        config = base.config
        kept = bytes_of_a_row(
            tokens,
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
            itemsize=base.dtype.itemsize,
        )
        room = total_memory_bytes(self._parameters[0].device) - self._weights
        return may_record(tokens, kept, room, recompute=getattr(base.model.layers[0], "gradient_checkpointing", False))

    def add_gradients(self, row: Row, weight: float) -> torch.Tensor:
        """The row's summed loss; `weight` times its gradients are added to those of the parameters.

        The row is on the CPU, whose generator decides what is dropped.
        """
        size = size_of(row.lengths, row.targets.shape[0], is_training=self._model.training)
        salt = int(torch.randint(-(2**31), 2**31, ()))
        numbers = fill(size, row)
        self._take_gradients()
        recorded = self._recorded.get(size) or self._try_to_record(size, numbers)
        if recorded is None:
            loss = self._row_loss(row.to(self._parameters[0].device))
            (loss * weight).backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        recorded.numbers.copy_(numbers)
        recorded.weight.fill_(weight)
        ops = _ops(self._model)
        assert isinstance(ops, GpuOps)
        ops.salt.fill_(salt)
        try:
            recorded.graph.replay()
        finally:
            ops.salt.zero_()  # rows without a graph count on it
        return recorded.loss.clone()

    def give_up(self) -> bool:
        """Give back what all graphs hold, and what a failed recording left in their pool. Whether there were any."""
        held = bool(self._recorded)
        self._recorded.clear()
        self._pool = torch.cuda.graph_pool_handle()
        return held

    def _take_gradients(self) -> None:
        """Make the sums the parameters' gradients, holding what these hold."""
        none_yet = all(parameter.grad is None for parameter in self._parameters)
        if none_yet:
            self._sums.zero_()  # one pass: hundreds take the processor 2 ms
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            if parameter.grad is gradient:
                continue
            if parameter.grad is not None:
                gradient.copy_(parameter.grad)
            elif not none_yet:
                gradient.zero_()
            parameter.grad = gradient

    def _try_to_record(self, size: Size, numbers: torch.Tensor) -> _Recorded | None:
        """None, now and from here on, where the device does not take part: rows then go without graphs."""
        try:
            self._recorded[size] = self._record(size, numbers)
        except RuntimeError as error:
            # Where memory runs out, ending the recording fails too, and the first error is the context of the second.
            for each in (error, error.__context__):
                if each is not None and is_out_of_memory(each):
                    raise each from None
            self.records = False
        return self._recorded.get(size)

    def _record(self, size: Size, numbers: torch.Tensor) -> _Recorded:
        device = self._parameters[0].device
        static = numbers.to(device)
        weight = torch.ones((), device=device)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):  # once without recording: kernels are compiled and chosen
            self._forth_and_back(size, static, weight)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss, gradients = self._forth_and_back(size, static, weight)
            torch._foreach_add_(self._gradients, gradients)
        return _Recorded(graph, static, weight, loss)

    def _forth_and_back(
        self, size: Size, numbers: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """With seeds that follow from the order of the layers alone."""
        parts = split(size, numbers)
        documents = Documents(parts.bounds.to(torch.int32), size.longest, size.are_short)
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed the GPU, which a recording forbids
        try:
            loss = self._row_loss.by_documents(parts.ids, parts.positions, parts.targets, parts.predictors, documents)
            gradients = torch.autograd.grad(loss * weight, self._parameters)
        finally:
            torch.set_rng_state(state)
        return loss.detach(), list(gradients)
