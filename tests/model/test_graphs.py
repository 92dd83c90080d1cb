"""Rows filled up to the size of a recorded graph, and the graphs themselves where there is a GPU for them."""

from __future__ import annotations

import copy

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from phinetune.model import lora
from phinetune.model.graph_sizes import size_of
from phinetune.model.graphs import GraphedRows, can_record, fill, split
from phinetune.model.rows import fast_row_loss
from phinetune.settings import LoraSettings
from phinetune.tokens.batch import lay_out, micro_batches
from phinetune.tokens.encode import Example
from phinetune.training.step import LossScale, step_gradients

LENGTHS = st.lists(st.integers(2, 150), min_size=1, max_size=30)


def _examples(lengths: list[int]) -> list[Example]:
    draw = torch.Generator().manual_seed(sum(lengths))
    return [
        Example(ids=torch.randint(1, 400, (n,), generator=draw).tolist(), prompt_length=max(1, n // 3), row=i)
        for i, n in enumerate(lengths)
    ]


@given(LENGTHS)
@settings(deadline=None)
def test_a_row_fits_into_its_size_and_the_fill_is_made_of_documents(lengths):
    row = lay_out(_examples(lengths))
    size = size_of(lengths, row.answer_tokens, is_training=True)
    assert row.tokens <= size.tokens < row.tokens + 256
    assert row.answer_tokens <= size.answers <= size.tokens
    assert max(lengths) <= size.longest
    parts = split(size, fill(size, row))
    assert torch.equal(parts.ids[: row.tokens], row.ids[0])
    assert torch.equal(parts.targets[: row.answer_tokens], row.targets)
    assert torch.equal(parts.predictors[: row.answer_tokens], row.predictors)
    assert (parts.targets[row.answer_tokens :] == -1).all()
    sizes = parts.bounds.diff()
    assert sizes[: len(lengths)].tolist() == lengths
    assert int(parts.bounds[-1]) == size.tokens
    assert (sizes >= 0).all()
    assert int(sizes.max()) <= size.longest
    places = [place for length in sizes.tolist() for place in range(length)]
    assert parts.positions.tolist() == places


def test_a_processor_records_nothing():
    assert not can_record(lora.attach(toys.phi(), LoraSettings(r=4), "toy", seed=1))


def test_memory_that_runs_out_is_told_as_such_where_ending_the_recording_fails_too(monkeypatch):
    pools = iter("abc")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(pools))
    model = lora.attach(toys.phi(), LoraSettings(r=4), "toy", seed=1)
    graphed = GraphedRows(model, fast_row_loss(model))

    def runs_out(*_: object) -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(graphed, "_record", runs_out)
    with pytest.raises(torch.OutOfMemoryError):
        graphed.add_gradients(lay_out(_examples([20, 31])), 1.0)
    assert graphed.records
    assert not graphed.give_up()
    graphed._recorded[object()] = object()
    assert graphed.give_up()
    assert (graphed._recorded, graphed._pool) == ({}, "c")


needs_a_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs an NVIDIA GPU of compute capability 8.0",
)


def _adapted(dropout: float):
    torch.manual_seed(0)
    model = lora.attach(toys.phi().bfloat16(), LoraSettings(r=4, dropout=dropout), "toy", seed=1).cuda().train()
    for name, parameter in lora.trainable(model):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def _gradients(model, row_loss, examples, per_row, seed=0):
    parameters = [parameter for _, parameter in lora.trainable(model)]
    result = step_gradients(
        row_loss,
        parameters,
        micro_batches(examples, per_row),
        max_grad_norm=1e9,
        seed=seed,
        loss_scale=LossScale(),
    )
    return result, torch.cat([p.grad.flatten() for p in parameters]).clone()


@needs_a_gpu
@pytest.mark.parametrize("per_row", [16, 5])
def test_a_graph_gives_the_rows_own_loss_and_gradients(per_row):
    model = _adapted(dropout=0.0)
    eager = fast_row_loss(model)
    graphed = GraphedRows(model, eager)
    for lengths in ([20, 31, 7, 64, 12] * 3 + [9], [18, 33, 8, 60, 12] * 3 + [10], [100, 40, 2]):
        examples = _examples(lengths)
        expected, plain = _gradients(model, eager, examples, per_row)
        for _ in range(2):
            found, ours = _gradients(model, graphed, examples, per_row)
            assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-3)
            assert float((ours - plain).norm() / plain.norm()) < 2e-2


@needs_a_gpu
def test_dropout_differs_from_step_to_step_and_not_from_run_to_run():
    examples = _examples([20, 31, 7, 64, 12] * 3)
    runs = []
    for _ in range(2):
        model = _adapted(dropout=0.3)
        graphed = GraphedRows(model, fast_row_loss(model))
        runs.append([_gradients(model, graphed, examples, 16, seed)[1] for seed in (1, 2, 1)])
    (first, second, again), other = runs
    torch.testing.assert_close(first, again, rtol=1e-3, atol=1e-5)
    assert float((first - second).norm() / first.norm()) > 0.05
    torch.testing.assert_close(first, other[0], rtol=1e-3, atol=1e-5)


@needs_a_gpu
def test_rows_with_and_without_a_graph_add_up_in_one_step(monkeypatch):
    model = _adapted(dropout=0.0)
    eager = fast_row_loss(model)
    graphed = GraphedRows(model, eager)
    examples = _examples([20, 31, 7, 64, 12, 5])
    _, plain = _gradients(model, eager, examples, 2)
    for kept in (0, 1, 2):
        taken = iter(index == kept for index in range(3))
        monkeypatch.setattr(graphed, "takes", lambda _lengths, taken=taken: next(taken))
        _, ours = _gradients(model, graphed, examples, 2)
        assert float((ours - plain).norm() / plain.norm()) < 2e-2


@needs_a_gpu
def test_where_recording_fails_rows_go_without(monkeypatch):
    model = _adapted(dropout=0.0)
    eager = fast_row_loss(model)
    graphed = GraphedRows(model, eager)
    examples = _examples([20, 31, 7])
    _, plain = _gradients(model, eager, examples, 2)

    def refuse(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(graphed, "_record", refuse)
    _, ours = _gradients(model, graphed, examples, 2)
    assert float((ours - plain).norm() / plain.norm()) < 2e-2
    assert not graphed.takes([20])


@needs_a_gpu
def test_fifty_steps_by_graphs_overlay_fifty_without():
    examples = _examples([20, 31, 7, 64, 12] * 6)
    curves = []
    for with_graphs in (False, True):
        model = copy.deepcopy(_adapted(dropout=0.0))
        parameters = [parameter for _, parameter in lora.trainable(model)]
        eager = fast_row_loss(model)
        row_loss = GraphedRows(model, eager) if with_graphs else eager
        optimizer = torch.optim.AdamW(parameters, lr=3e-3, fused=True)
        losses = []
        for step in range(50):
            chosen = [examples[(step * 7 + i) % len(examples)] for i in range(8)]
            losses.append(_gradients(model, row_loss, chosen, 8)[0].train_loss)
            optimizer.step()
        curves.append(losses)
    plain, ours = curves
    assert plain[-1] < 0.8 * plain[0]
    assert ours == pytest.approx(plain, rel=2e-2)
