"""Steps whose numbers are wrong are skipped, and no others, in drawn runs, in real ones and in toys."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from toy_training import Run, equal, noise, small_corpus, unreadable_token

from phinetune.artifacts.metrics import read_metrics
from phinetune.events import Finished, RolledBack, StepDone, StepSkipped
from phinetune.model import lora
from phinetune.training.recovery import reason_to_skip

REAL_RUNS = sorted((Path(__file__).parents[1] / "artifacts" / "runs").rglob("*.csv"))


def test_a_step_without_numbers_is_skipped_and_leaves_weights_and_moments_alone(tmp_path):
    base, letter = unreadable_token()
    events = []

    def before(run, event):
        events.append((event, run.weights))

    run = Run(tmp_path, corpus=small_corpus(letter), base=base, before=before, save_steps=1, keep_checkpoints=50)
    skipped = run.of(StepSkipped)
    assert len(skipped) == 3  # once an epoch, and never two in a row
    assert all((s.reason, s.train_loss) == ("not_finite", None) and 7 in s.rows for s in skipped)
    steps = [(event, weights) for event, weights in events if isinstance(event, StepDone | StepSkipped)]
    assert [event.step for event, _ in steps] == list(range(1, 13))
    for (_, before_it), (event, after_it) in pairwise(steps):
        assert equal(before_it, after_it) == isinstance(event, StepSkipped)
    assert run.of(Finished)[0].stopped == "finished"
    assert all(torch.isfinite(weights).all() for weights in run.weights)
    first = skipped[0].step
    assert run.moments(first + 1) != run.moments(first - 1)
    assert not run.checkpoints.folder.checkpoint(first).exists()  # a state under suspicion is not written


def test_the_log_counts_a_skipped_step_once_and_gives_it_no_rate(tmp_path):
    base, letter = unreadable_token()
    run = Run(tmp_path, corpus=small_corpus(letter), base=base)
    rows = read_metrics(run.checkpoints.folder.metrics_csv)
    assert [row.step for row in rows] == list(range(13))
    assert [row.step for row in rows if row.was_skipped] == [s.step for s in run.of(StepSkipped)]
    assert sum(row.tokens for row in rows) == 3 * sum(len(e.ids) for e in small_corpus(letter).train)


def test_a_resume_after_a_skipped_step_is_bit_identical(tmp_path):
    def run(folder, **options):
        base, letter = unreadable_token()
        return Run(folder, corpus=small_corpus(letter), base=base, **options)

    whole = run(tmp_path / "whole")
    stop = whole.of(StepSkipped)[1].step + 1
    run(tmp_path / "parts", stop_after=stop)
    rest = run(tmp_path / "parts", resume=True)
    assert equal(rest.weights, whole.weights)
    assert [row.step for row in rest.log.rows if row.was_skipped] == [s.step for s in whole.of(StepSkipped)]


def test_fp16_skips_what_no_scale_can_save_and_keeps_its_scale(tmp_path):
    base, letter = unreadable_token()
    run = Run(tmp_path, corpus=small_corpus(letter), base=base, dtype=torch.float16)
    assert len(run.of(StepSkipped)) == 3
    progress = json.loads((tmp_path / "checkpoints/checkpoint-12/state.json").read_text())["progress"]
    assert progress["loss_scale"] == 2.0**16


def _history(losses, norms):
    pairs = zip(losses, norms, strict=True)
    return [StepDone(i, i / 10, loss, 1e-3, norm, 100, 1.0) for i, (loss, norm) in enumerate(pairs, 1)]


def _falling(count: int, noise: float, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    wobble = torch.exp(noise * torch.randn(2, count, generator=random)).tolist()
    losses = [(0.5 + 2.5 * math.exp(-4 * i / count)) * w for i, w in enumerate(wobble[0])]
    return losses, wobble[1]


def test_a_spike_stands_out_in_loss_and_gradient_both():
    history = _history(*_falling(60, 0.1))
    assert reason_to_skip(history, 3.0, 12.0) == "spike"
    assert reason_to_skip(history, 3.0, 1.5) is None
    assert reason_to_skip(history, 0.6, 12.0) is None


def test_a_few_steps_do_not_tell_what_is_usual():
    assert reason_to_skip(_history(*_falling(19, 0.1)), 30.0, 120.0) is None


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf")), (float("inf"), float("nan"))])
def test_what_is_no_number_is_skipped_from_the_first_step_on(loss, norm):
    assert reason_to_skip([], loss, norm) == "not_finite"


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 0.6])
def test_noise_is_no_spike(noise):
    for seed in range(40):
        losses, norms = _falling(200, noise, seed)
        history = _history(losses, norms)
        found = [i for i in range(200) if reason_to_skip(history[:i], losses[i], norms[i])]
        assert not found, (seed, found)


def test_there_are_real_runs_to_look_at():
    assert REAL_RUNS


@pytest.mark.parametrize("path", REAL_RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_step_of_a_real_run_was_a_spike(path):
    taken = [row for row in read_metrics(path) if row.train_loss is not None and row.grad_norm is not None]
    history = _history([row.train_loss for row in taken], [row.grad_norm for row in taken])
    found = [row.step for i, row in enumerate(taken) if reason_to_skip(history[:i], row.train_loss, row.grad_norm)]
    assert len(taken) >= 5
    assert not found


def test_a_real_spike_is_skipped_and_the_run_goes_on_as_if_it_had_not_been(tmp_path):
    """A state that something spoiled for one step: the step after it is measured with the wrong weights."""
    spoiled = {}

    def spoil(run, event):
        name, parameter = lora.trainable(run.model)[-1]
        if isinstance(event, StepDone) and event.step == 81 and not spoiled:
            spoiled[name] = parameter.detach().clone()
            with torch.no_grad():
                parameter.copy_(noise(parameter))
        elif isinstance(event, StepSkipped):
            with torch.no_grad():
                parameter.copy_(spoiled[name])

    run = Run(tmp_path, epochs=90, batch_size=20, eval_steps=45, save_steps=45, learning_rate=2e-2, before=spoil)
    [skipped] = run.of(StepSkipped)
    assert (skipped.step, skipped.reason) == (82, "spike")
    around = [s.train_loss for s in run.of(StepDone) if s.step in (81, 83)]
    assert skipped.train_loss > 2 * max(around)
    assert not run.of(RolledBack)
    assert run.of(Finished)[0].stopped == "finished"


@pytest.mark.parametrize("seed", range(4))
def test_normal_runs_skip_nothing(tmp_path, seed):
    run = Run(tmp_path, epochs=20, learning_rate=1e-2, seed=seed, patience=0)
    assert len(run.of(StepDone)) == 80
    assert not run.of(StepSkipped)
