"""Numbers that go wrong in the middle of a run: it goes back, and the best model stays."""

from __future__ import annotations

import math

import torch
import toys
from toy_training import Run, breaks_once, equal, noise, small_corpus

from phinetune.artifacts.metrics import MetricsLog, read_metrics
from phinetune.events import Finished, RolledBack, Saved, StepDone, StepSkipped, Validated, Warned
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.training.checkpoint import damage
from phinetune.training.loop import Corpus
from phinetune.training.recovery import trouble_with_steps


def _step(step):
    return StepDone(step, 0.1, 1.0, 1e-3, 1.0, 10, 1.0)


def _skip(step):
    return StepSkipped(step, 0.1, "not_finite", None, None, 10, 1.0, ())


def test_three_in_a_row_or_six_of_twenty_are_too_many():
    assert trouble_with_steps([_step(1), _skip(2), _skip(3)]) is None
    assert "3 steps in a row" in trouble_with_steps([_step(1), _skip(2), _skip(3), _skip(4)])
    one_of_three = [(_skip if i % 3 == 0 else _step)(i) for i in range(1, 19)]
    assert "6 of the last 18 steps" in trouble_with_steps(one_of_three)
    assert trouble_with_steps(one_of_three[:-1]) is None
    assert trouble_with_steps([*one_of_three, RolledBack(18, 4, 0.5, 1.0), _skip(5)]) is None


def test_damaged_weights_lead_back_to_the_last_checkpoint_at_half_the_rate(tmp_path):
    run = Run(tmp_path, before=breaks_once(5))
    [back] = run.of(RolledBack)
    assert (back.step, back.to_step, back.learning_rate_factor) == (8, 4, 0.5)
    assert [s.step for s in run.of(StepSkipped)] == [6, 7, 8]
    [said] = run.of(Warned)
    assert said.code == "rolled_back"
    assert "goes back from step 8 to checkpoint-4, and on at half of the learning rate" in said.message
    steps = [event for event in run.events if isinstance(event, StepDone)]
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 11, 12]
    assert steps[5].learning_rate == steps[4].learning_rate / 2
    assert run.of(Finished)[0].stopped == "finished"
    assert all(torch.isfinite(weights).all() for weights in run.weights)


def test_the_figures_of_a_run_that_went_back_count_no_step_twice(tmp_path):
    run = Run(tmp_path, before=breaks_once(5))
    rows = read_metrics(run.checkpoints.folder.metrics_csv)
    assert [row.step for row in rows] == list(range(13))
    assert run.log.rollbacks == 1
    finished = run.of(Finished)[0]
    assert finished.tokens == sum(row.tokens for row in rows) == 3 * sum(len(e.ids) for e in small_corpus().train)
    history = run.checkpoints.history(12)
    replayed = MetricsLog(RunFolder(tmp_path / "again"))
    for event in history:
        replayed.consume(event)
    assert replayed.rows == run.log.rows
    assert replayed.rollbacks == 1


def test_a_resume_after_going_back_is_bit_identical(tmp_path):
    whole = Run(tmp_path / "whole", before=breaks_once(5))
    part = Run(tmp_path / "parts", before=breaks_once(5), stop_after=9)
    assert part.of(RolledBack)
    rest = Run(tmp_path / "parts", resume=True)
    assert equal(rest.weights, whole.weights)
    assert [(r.step, r.train_loss, r.eval_loss, r.learning_rate) for r in rest.log.rows] == [
        (r.step, r.train_loss, r.eval_loss, r.learning_rate) for r in whole.log.rows
    ]


def test_before_the_first_checkpoint_the_way_back_leads_to_the_beginning(tmp_path):
    run = Run(tmp_path, before=breaks_once(1))
    [back] = run.of(RolledBack)
    assert (back.step, back.to_step) == (4, 0)
    assert "to its beginning" in run.of(Warned)[0].message
    first, again = (s for s in run.of(StepDone) if s.step == 1)
    assert (again.train_loss, again.grad_norm) == (first.train_loss, first.grad_norm)
    assert again.learning_rate == first.learning_rate / 2
    assert [row.step for row in run.log.rows] == list(range(13))


def test_a_held_out_loss_that_is_no_number_is_never_the_best_and_leads_back(tmp_path):
    def before(run, event):
        if isinstance(event, StepDone) and event.step == 8 and not run.of(RolledBack):
            run.break_weights()

    run = Run(tmp_path, before=before)
    assert (run.of(RolledBack)[0].step, run.of(RolledBack)[0].to_step) == (8, 4)
    assert "held-out loss is no longer a number" in run.of(Warned)[0].message
    assert all(math.isfinite(v.eval_loss) for v in run.of(Validated))
    assert run.of(Finished)[0].stopped == "finished"


def test_an_adapter_that_is_no_number_is_never_saved(tmp_path):
    """Broken just before a checkpoint that no validation stands before."""

    def before(run, event):
        if isinstance(event, StepDone) and event.step == 6 and not run.of(RolledBack):
            run.break_weights(float("inf"))

    run = Run(tmp_path, before=before, corpus=Corpus(small_corpus().train, []), save_steps=3, keep_checkpoints=50)
    assert (run.of(RolledBack)[0].step, run.of(RolledBack)[0].to_step) == (6, 3)
    assert "weights are no longer numbers" in run.of(Warned)[0].message
    for step in run.checkpoints.folder.checkpoint_steps():
        weights = lora.read_weights(run.checkpoints.folder.checkpoint(step))
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert [s.step for s in run.of(Saved)] == [3, 6, 9, 12]


def test_damage_that_comes_again_ends_the_run_with_the_best_state_kept(tmp_path):
    def before(run, event):
        if isinstance(event, StepDone) and event.step == 9:
            run.break_weights()

    run = Run(tmp_path, before=before, epochs=6)
    assert [r.learning_rate_factor for r in run.of(RolledBack)] == [0.5, 0.25]
    assert "after going back twice already" in run.error.message
    best = [v for v in run.of(Validated) if v.is_best][-1].step
    assert f"step {best}, is kept in checkpoints/checkpoint-{best}" in run.error.message
    assert damage(run.checkpoints.folder.checkpoint(best)) is None
    assert "--lr" in run.error.hint
    assert not run.of(Finished)


def test_the_second_way_back_leads_to_the_best_checkpoint_where_the_latest_is_not_sound(tmp_path):
    """Held-out loss rose after step 4, so the checkpoint of step 6 may be where the trouble began."""

    def before(run, event):
        if isinstance(event, StepDone) and event.step == 7:
            run.break_weights()
        elif isinstance(event, StepDone) and event.step == 5 and not run.of(RolledBack):
            with torch.no_grad():  # worse, and still a number
                lora.trainable(run.model)[-1][1].copy_(noise(lora.trainable(run.model)[-1][1]))

    run = Run(tmp_path, before=before, eval_steps=2, save_steps=2, epochs=6)
    first = {v.step: v.is_best for v in run.of(Validated)[:4]}
    assert first == {0: False, 2: True, 4: True, 6: False}
    assert [(r.step, r.to_step) for r in run.of(RolledBack)] == [(8, 6), (8, 4)]
    assert run.error is not None
    assert max(run.checkpoints.folder.checkpoint_steps()) == 6  # of the third try


def test_a_base_model_that_is_damaged_is_told_before_anything_is_learned(tmp_path):
    base = toys.phi()
    with torch.no_grad():
        base.lm_head.weight[0, 0] = float("nan")
    run = Run(tmp_path, base=base)
    assert "before any training" in run.error.message
    assert not run.of(StepDone)
