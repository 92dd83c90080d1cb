from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import toys

from phinetune.events import StepDone, Validated
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
    largest_that_fits,
    memory_of,
    rows_of,
    time_of,
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


def test_time_follows_the_measured_speed_where_there_is_one():
    scene = _scene()
    steps = count_steps(scene, rows_of(scene))
    measured = time_of(scene, steps, measured_tokens_per_s=100.0)
    assert measured.training == steps.tokens / 100
    assert "measured here" in measured.basis
    assert "not measured" in time_of(scene, steps).basis
    assert time_of(scene, steps).total > 0
    twice = replace(scene, settings=TrainSettings(epochs=10))
    assert time_of(twice, count_steps(twice, rows_of(twice))).training == pytest.approx(
        2 * time_of(scene, steps).training, rel=0.01
    )


def test_disk_holds_the_best_and_the_latest_checkpoints():
    disk = disk_of(_scene(settings=TrainSettings(keep_checkpoints=4)), download_bytes=7)
    assert disk["checkpoints"] == 5 * 3 * 4 * 23_592_960
    assert disk["download"] == 7
