from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import toys

from phinetune.events import Saved, StepDone, Validated
from phinetune.model import lora, memory
from phinetune.model.find_shape import KNOWN
from phinetune.model.hardware import pick
from phinetune.model.row_plan import RowPlan
from phinetune.model.shape import adapter_shape, read_shape
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Example
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit
from phinetune.training.planning import (
    PairTokens,
    Scene,
    Workload,
    count_steps,
    disk_of,
    held_by_graphs,
    largest_that_fits,
    memory_of,
    rows_of,
)

LENGTHS = [(8 + 3 * i % 17, 3 + i % 4) for i in range(19)]


def _scene(shape=None, settings=None, device="t4", pairs=LENGTHS, dtype=None) -> Scene:
    shape = shape or read_shape(KNOWN["microsoft/phi-2"], "Phi-2")
    work = tuple(PairTokens(*pair) for pair in pairs)
    here = pick(device)
    return Scene(
        shape=shape,
        adapter=adapter_shape(shape, 16, "all"),
        workload=Workload(work, work[:2], cut=0, longest_uncut=max(p.tokens for p in work), is_exact=True),
        settings=settings or TrainSettings(),
        device=here,
        dtype=dtype or here.dtype,
    )


def test_steps_rows_and_tokens_are_those_that_the_run_takes(tmp_path):
    settings = TrainSettings(epochs=2.5, batch_size=2, grad_accum=3, patience=0, dtype="fp32", eval_steps=3)
    model = toys.llama()
    scene = _scene(read_shape(model.config.to_dict(), "toy"), settings, "cpu", dtype="fp32")
    steps = count_steps(scene, RowPlan(2, recompute=False))
    examples = [Example(tuple(i % 400 for i in range(n)), n - a, 1) for n, a in LENGTHS]
    adapted = lora.attach(model.requires_grad_(False), LoraSettings(r=2), "toy", seed=0)
    checkpoints = Checkpoints(RunFolder(tmp_path), {}, keep=1)
    seen = list(fit(adapted, Corpus(examples, examples[:2]), settings, checkpoints, pairs_per_row=2))
    done = [event for event in seen if isinstance(event, StepDone)]
    assert steps.total == len(done)
    assert steps.tokens == sum(step.tokens for step in done)
    assert steps.validations == sum(isinstance(event, Validated) for event in seen)
    assert max(len(row.lengths) for row in steps.rows) == 2
    assert steps.saves == sum(isinstance(event, Saved) for event in seen)  # every validation was the best so far
    assert steps.graphs == ()


def test_the_rows_are_those_that_training_decides(monkeypatch):
    scene = _scene(pairs=[(500, 400)] * 40)
    monkeypatch.setattr(memory, "total_memory_bytes", lambda _: scene.device.memory)
    with torch.device("meta"):
        from transformers import PhiConfig, PhiForCausalLM

        config = PhiConfig(vocab_size=51200, hidden_size=2560, intermediate_size=10240, num_hidden_layers=32)
        model = PhiForCausalLM(config).to(torch.float16)
    for batch, accum in ((4, 4), (16, 1), (64, 1), (1, 2)):
        settings = TrainSettings(batch_size=batch, grad_accum=accum)
        planned = rows_of(replace(scene, settings=settings))
        assert planned == memory.plan_rows(model, [500] * 42, batch, batch * accum, torch.device("cpu"))
    by_hand = replace(scene, settings=TrainSettings(gradient_checkpointing=True))
    assert rows_of(by_hand) == RowPlan(4, recompute=True)


def test_phi2_fits_a_t4_in_fp16_and_not_a_mistral():
    small = _scene()
    assert memory_of(small, count_steps(small, rows_of(small))).total < small.room
    large = _scene(read_shape(KNOWN["mistralai/Mistral-7B-v0.1"], "Mistral"))
    assert memory_of(large, count_steps(large, rows_of(large))).total > large.room
    assert largest_that_fits(large) is None


def test_long_rows_are_cut_smaller_until_they_fit():
    scene = _scene(pairs=[(512, 400)] * 64, settings=TrainSettings(batch_size=64, grad_accum=1))
    best = largest_that_fits(scene)
    assert best is not None
    steps, its_memory = best
    assert 1 <= steps.plan.pairs_per_row < 64
    assert 64 % steps.plan.pairs_per_row == 0
    assert its_memory.total <= scene.room
    assert not steps.plan.recompute


def test_disk_holds_the_best_and_the_latest_checkpoints():
    disk = disk_of(_scene(settings=TrainSettings(keep_checkpoints=4)), download_bytes=7)
    assert disk["checkpoints"] == 5 * 3 * 4 * 23_592_960
    assert disk["download"] == 7


def test_graphs_are_counted_by_size_on_devices_that_record_them():
    settings = TrainSettings(epochs=5)
    scene = _scene(device="h200", pairs=[(20 + 7 * i % 40, 10) for i in range(441)], settings=settings)
    steps = count_steps(scene, rows_of(scene))
    assert {size.tokens % 256 for size in steps.graphs} == {0}
    assert 1 <= len(steps.graphs) <= 4
    # 9 graphs of rows of 549 tokens held 3.6 GB on an H200, and 19 held 4.3.
    assert held_by_graphs(scene, steps) == pytest.approx(3.9e9, rel=0.4)
    long = replace(scene, workload=replace(scene.workload, train=(PairTokens(500, 400),) * 256))
    by_256 = replace(long, settings=TrainSettings(batch_size=256, grad_accum=1))
    assert count_steps(by_256, RowPlan(256, recompute=False)).graphs == ()
    for none in (
        _scene(device="t4"),
        _scene(device="cpu"),
        _scene(device="h200", dtype="fp32"),
    ):
        assert count_steps(none, rows_of(none)).graphs == ()
        assert held_by_graphs(none, count_steps(none, rows_of(none))) == 0
    recomputed = replace(scene, settings=TrainSettings(gradient_checkpointing=True))
    assert count_steps(recomputed, rows_of(recomputed)).graphs == ()
