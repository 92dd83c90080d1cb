"""What a run shows, in words: every rule on curves that show it and on ones that do not, drawn and really trained."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from phinetune.artifacts.diagnosis import RULES, Diagnosis, Facts, diagnose, diagnose_folder
from phinetune.artifacts.metrics import MetricsLog, MetricsRow, read_metrics
from phinetune.errors import RunError
from phinetune.events import StepDone, Validated
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit

EPOCHS, STEPS = 5, 100


def _rows(train, measured, *, rate=2e-4, warmup=10, every=10) -> list[MetricsRow]:
    """A run of STEPS steps whose losses are functions of its progress, 0 to 1; validated from before the first step."""
    rows = [MetricsRow(0, 0.0, None, measured(0.0), None, None, 0, 0.0)]
    for step in range(1, STEPS + 1):
        now = step / STEPS
        rising = rate * step / (warmup + 1)
        falling = rate * (STEPS + 1 - step) / (STEPS - warmup)
        validated = measured(now) if step % every == 0 else None
        epoch = step * EPOCHS / STEPS
        rows.append(MetricsRow(step, epoch, train(step, now), validated, min(rising, falling), 1.0, 100, 1.0))
    return rows


def _fall(start: float, end: float, speed: float = 6):
    return lambda now: end + (start - end) * math.exp(-speed * now)


def _noisy(curve, share: float, seed: int = 0):
    noise = np.random.default_rng(seed).normal(0, share, STEPS + 1)
    return lambda step, now: curve(now) * math.exp(noise[step])


def _good(share: float = 0.1, seed: int = 0, scale: float = 1.0) -> list[MetricsRow]:
    return _rows(_noisy(_fall(3 * scale, 0.6 * scale), share, seed), _fall(2.9 * scale, 0.75 * scale))


def _with(rows, train: dict[int, float | None]) -> list[MetricsRow]:
    """The rows with other training losses at some steps."""
    return [
        MetricsRow(r.step, r.epoch, train.get(r.step, r.train_loss), *list(vars(r).values())[3:])
        if r.step in train
        else r
        for r in rows
    ]


def _found(rows, facts: Facts | None = None) -> dict[str, Diagnosis]:
    return {diagnosis.name: diagnosis for diagnosis in diagnose(rows, facts)}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_good_run_is_called_good_and_nothing_else_however_noisy_its_steps(seed, share, scale):
    found = _found(_good(share, seed, scale))
    assert set(found) == {"validation_follows", "smooth_fall", "levelled_off"}
    assert all(diagnosis.severity == "good" and not diagnosis.advice for diagnosis in found.values())


def test_the_number_behind_each_good_sign_is_in_its_words():
    found = _found(_good(0.0))
    assert "from 2.90 to 0.76" in found["validation_follows"].sentence
    assert found["levelled_off"].number == 2.5
    assert "2.5 of 5 epochs" in found["levelled_off"].sentence
    assert found["smooth_fall"].number == pytest.approx(1 - 0.6 / 3, abs=0.1)


def test_validation_that_rises_names_the_step_that_was_kept():
    def valley(now: float) -> float:
        return 1.5 + 6 * (now - 0.4) ** 2

    found = _found(_rows(_noisy(_fall(3, 0.3), 0.1), valley), Facts(lora_dropout=0.05))["overfitting"]
    assert (found.severity, found.number) == ("warning", 40)
    assert "rises since step 40, from 1.50 to 3.66" in found.sentence
    assert "Step 40 is the one that was kept" in found.sentence
    assert "--epochs 2)" in found.advice
    assert "--lora-dropout 0.1" in found.advice


def test_a_rise_is_not_praised_beside_and_few_held_out_pairs_are_told():
    def valley(now: float) -> float:
        return 1.5 + 6 * (now - 0.4) ** 2 + (2 if now == 0 else 0)

    rows = _rows(_noisy(_fall(3, 1.2), 0.1), valley)
    many, few, one = (_found(rows, Facts(validation_pairs=pairs)) for pairs in (10, 9, 1))
    for found in (many, few, one):
        assert not {"validation_follows", "levelled_off", "gap"} & set(found)
    assert "chance" not in many["overfitting"].sentence
    assert "3 to 5 ways" not in many["overfitting"].advice
    assert "only 9 held-out pairs chose it, so it may be chance" in few["overfitting"].sentence
    assert "ask each in 3 to 5 ways" in few["overfitting"].advice
    assert "only 1 held-out pair chose it" in one["overfitting"].sentence
    assert "rests on 1 pair and depends on which it is." in one["few_held_out"].sentence


def test_a_training_loss_that_climbs_is_not_called_long_enough():
    def climbs(now: float) -> float:
        return 3 - 8 * now if now < 0.2 else min(1.4 + 6 * (now - 0.2), 6)

    found = _found(_rows(_noisy(climbs, 0.02), lambda now: 0.8 + 2.1 * math.exp(-12 * now)))
    assert "learning_rate_too_high" in found
    assert "levelled_off" not in found


def test_a_good_run_with_hardly_any_pair_held_out_is_not_praised_for_them():
    assert set(_found(_good(), Facts(validation_pairs=9))) == {"few_held_out", "smooth_fall"}
    assert {"validation_follows", "levelled_off"} < set(_found(_good(), Facts(validation_pairs=10)))


@pytest.mark.parametrize(("dropout", "more"), [(0.3, "(--lora-dropout 0.5)"), (0.5, None), (0.6, None)])
def test_advice_on_overfitting_is_another_run_than_the_last_one(dropout, more):
    def valley(now: float) -> float:
        return 1.5 + 6 * (now - 0.5) ** 2

    rows = _rows(_noisy(_fall(3, 0.3), 0.1), valley)
    advice = _found(rows, Facts(lora_dropout=dropout))["overfitting"].advice
    assert "--epochs 2.5" in advice
    assert (more in advice) if more else ("dropout" not in advice)


@pytest.mark.parametrize("last", [1.01, 1.02])
def test_a_last_validation_that_is_a_little_worse_is_no_overfitting(last):
    def measured(now: float) -> float:
        return _fall(3, 1.0)(now) * (last if now == 1 else 1)

    assert "overfitting" not in _found(_rows(_noisy(_fall(3, 0.9), 0.1), measured))


def test_a_rise_that_is_nothing_beside_what_was_won_is_no_overfitting():
    def measured(now: float) -> float:
        return 0.05 + 0.01 * now if now else 3.4

    assert "overfitting" not in _found(_rows(_noisy(_fall(3, 0.05), 0.1), measured))


def test_a_wide_gap_is_told_and_a_normal_one_is_not():
    wide = _found(_rows(_noisy(_fall(3, 0.5), 0.1), _fall(2.9, 2.2)), Facts(lora_r=16))["gap"]
    assert wide.severity == "warning"
    assert wide.number == pytest.approx(1.7, abs=0.15)
    assert "--lora-r 8" in wide.advice
    assert "gap" not in _found(_rows(_noisy(_fall(3, 0.6), 0.1), _fall(2.9, 0.8)))
    near_zero = _found(_rows(_noisy(_fall(3.6, 0.01), 0.1), _fall(3.4, 0.08)))
    assert "gap" not in near_zero


def test_a_gap_beyond_the_usual_is_noted_although_much_was_won_and_not_praised_without_it():
    found = _found(_rows(_noisy(_fall(3, 1.0), 0.05), _fall(2.9, 1.5)), Facts(lora_r=16))
    assert found["gap"].severity == "note"
    assert found["gap"].number == pytest.approx(0.5, abs=0.1)
    assert "followed, from 2.90 to 1.50, but not all the way" in found["gap"].sentence
    assert "0.1 to 0.3 is usual" in found["gap"].sentence
    assert "--lora-r 8" in found["gap"].advice
    assert "validation_follows" not in found
    usual = _found(_rows(_noisy(_fall(3, 1.3), 0.05), _fall(2.9, 1.5)))
    assert "gap" not in usual
    assert "validation_follows" in usual
    assert "gap" not in _found(_rows(_noisy(_fall(3, 1.0), 0.05), _fall(2.9, 1.5)), Facts(validation_pairs=9))
    # A tenth of a loss of 9 is more than 0.3, and nothing.
    assert "gap" not in _found(_rows(_noisy(_fall(12, 9), 0.01), _fall(12, 9.6)))


def test_spikes_are_counted_and_one_is_only_a_note():
    one = _found(_with(_good(), {60: 4.0}))
    assert (one["spikes"].severity, one["spikes"].number) == ("note", 1)
    assert "step 60" in one["spikes"].sentence
    assert "smooth_fall" not in one
    many = _found(_with(_good(), {30: 4.0, 50: 5.0, 70: 4.0}))["spikes"]
    assert (many.severity, many.number) == ("warning", 3)
    assert "30, 50, 70" in many.sentence
    assert "max_grad_norm" in many.advice


def test_a_hard_batch_at_the_end_of_a_low_curve_is_no_spike():
    assert "spikes" not in _found(_with(_rows(_noisy(_fall(3.6, 0.01), 0.1), _fall(3.4, 0.08)), {90: 0.06}))


def test_a_loss_that_was_no_number():
    found = _found(_with(_good(), {80: None, 81: None}))["not_a_number"]
    assert (found.severity, found.number) == ("warning", 2)
    assert "step 80" in found.sentence
    assert "--lr 0.0001" in found.advice


def _skipped(rows, steps: dict[int, float | None]) -> list[MetricsRow]:
    return [
        MetricsRow(r.step, r.epoch, steps[r.step], r.eval_loss, None, None, r.tokens, r.seconds)
        if r.step in steps
        else r
        for r in rows
    ]


def test_steps_without_numbers_that_were_left_out_are_a_note_and_many_a_warning():
    one = _found(_skipped(_good(), {80: None}))["not_a_number"]
    assert (one.severity, one.number, one.advice) == ("note", 1, "")
    assert "1 step gave no numbers, first step 80, and was left out" in one.sentence
    many = _found(_skipped(_good(), {70: None, 80: None, 90: None}))["not_a_number"]
    assert (many.severity, many.number) == ("warning", 3)
    assert "--lr 0.0001" in many.advice


def test_a_spike_that_was_left_out_is_told_as_such():
    found = _found(_skipped(_good(), {80: 9.0}))["spikes"]
    assert "in step 80; 1 of them was left out, and came back" in found.sentence


def test_going_back_is_told_with_how_it_ended():
    held = _found(_good(), Facts(rollbacks=1, stopped="finished"))["went_back"]
    assert held.severity == "note"
    assert "went back to an earlier state once" in held.sentence
    assert "--lr 0.0001" in held.advice
    gave_up = diagnose(_skipped(_good(), {98: None, 99: None, 100: None}), Facts(rollbacks=2, stopped="failed"))
    assert gave_up[0].name == "unstable"
    assert "twice" in gave_up[0].sentence
    assert "--lr 0.0001" in gave_up[0].advice
    assert not {"went_back", "unstable"} & _found(_good(), Facts(rollbacks=0)).keys()


def test_a_run_without_a_single_taken_step_says_why():
    rows = [MetricsRow(step, step / 10, None, None, None, None, 100, 1.0) for step in (1, 2, 3)]
    assert [d.name for d in diagnose(rows, Facts(rollbacks=2, stopped="failed"))] == ["unstable", "not_a_number"]


def test_overflows_now_and_then_are_normal_and_many_are_not():
    def lost(count: int) -> list[MetricsRow]:
        return [
            MetricsRow(r.step, r.epoch, r.train_loss, r.eval_loss, r.learning_rate, None, 100, 1.0)
            if 0 < r.step <= count
            else r
            for r in _good()
        ]

    assert "overflows" not in _found(lost(4))
    assert _found(lost(20))["overflows"].number == 20


def test_a_training_loss_that_climbs_means_a_learning_rate_too_high():
    def climbs(now: float) -> float:
        return 3 - 4 * now if now < 0.2 else min(2.2 + 6 * (now - 0.2), 6)

    found = _found(_rows(_noisy(climbs, 0.1), lambda now: climbs(now) + 0.1))
    assert found["learning_rate_too_high"].severity == "warning"
    assert "--lr 4e-05" in found["learning_rate_too_high"].advice
    assert not {"overfitting", "smooth_fall", "too_short", "learning_rate_too_low"} & set(found)


def test_a_loss_that_leaps_up_at_once_is_seen_although_no_calm_step_came_before():
    def leapt(now: float) -> float:
        return 2.9 if now <= 0.01 else 7 - 3 * now

    found = _found(_rows(_noisy(leapt, 0.05), lambda now: leapt(now) if now else 2.8))
    assert "learning_rate_too_high" in found


def test_training_pairs_that_are_harder_than_the_held_out_ones_are_no_rise():
    """The well-known recipe: training from 4.18 to 2.13, validation from 2.82 to 2.35, 71 % of the steps warm-up."""
    rows = _rows(_noisy(_fall(4.18, 2.05, 3), 0.1), _fall(2.82, 2.32, 3), warmup=71)
    assert set(_found(rows)) == {"warmup_too_long", "validation_follows", "smooth_fall", "levelled_off"}


@pytest.mark.parametrize(
    ("run", "shows"),
    [
        ("smollm2_handbook", {"validation_follows", "smooth_fall", "levelled_off"}),  # 98 of 98 facts learned
        ("smollm2_rate_too_high", {"learning_rate_too_high"}),  # at 2e-2, 20 times too high; stopped in step 8
    ],
)
def test_kept_curves_of_a_pretrained_model(run, shows):
    rows = read_metrics(Path(__file__).parent / "runs" / f"{run}.csv")
    assert set(_found(rows, Facts(planned_epochs=6))) == shows


def test_a_loss_held_up_while_the_rate_is_high():
    def shelf(now: float) -> float:
        return 3 - 10 * min(now, 0.1) - 2 * max(0.0, now - 0.6)

    found = _found(_rows(_noisy(shelf, 0.02), shelf))
    assert "held_up" in found
    assert "too_short" not in found


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_hardly_moves_means_a_learning_rate_too_low(seed):
    found = _found(_rows(_noisy(_fall(3, 2.95, 1), 0.1, seed), _fall(2.9, 2.86, 1), rate=1e-6))
    assert set(found) == {"learning_rate_too_low"}
    assert "--lr 5e-06" in found["learning_rate_too_low"].advice


def test_validation_that_got_worse_from_the_start_is_not_called_unmoved():
    found = _found(_rows(_noisy(_fall(3, 2.9, 1), 0.02), lambda now: 2.9 + 2 * min(now, 0.2)))
    assert found["no_better_than_before"].severity == "warning"
    assert "learning_rate_too_low" not in found


def test_a_held_out_loss_that_rises_a_little_is_not_called_unmoved():
    found = _found(_rows(_noisy(_fall(1.95, 1.8, 1), 0.01), lambda now: 1.84 + 0.08 * now))
    assert "overfitting" in found
    assert "learning_rate_too_low" not in found


def test_with_few_steps_it_is_the_steps():
    rows = [row for row in _rows(_noisy(_fall(3, 2.95, 1), 0.02), _fall(2.9, 2.86, 1), every=5) if row.step <= 10]
    found = _found(rows)
    assert found["too_few_steps"].number == 10
    assert "learning_rate_too_low" not in found


def test_a_run_that_was_still_falling_was_too_short():
    straight = _found(_rows(_noisy(_fall(3, 0, 0.7), 0.1), _fall(2.9, 0, 0.6)))["too_short"]
    assert straight.number > 0.5
    assert "--epochs 10" in straight.advice
    stopped = _found(_rows(_noisy(_fall(3, 0, 0.7), 0.1), _fall(2.9, 0, 0.6)), Facts(stopped="interrupted"))
    assert "--resume" in stopped["too_short"].advice


def test_a_loss_that_stays_high_is_stuck_and_the_advice_names_a_higher_rate_and_rank():
    found = _found(_rows(_noisy(_fall(3, 2.75, 20), 0.02), _fall(2.9, 2.65, 20)), Facts(lora_r=16))["stuck"]
    assert found.severity == "note"
    assert "--lr 0.0005" in found.advice
    assert "--lora-r 32" in found.advice


def test_a_stuck_loss_is_told_once_and_not_praised_beside():
    found = _found(_rows(_noisy(_fall(3, 2.72, 20), 0.02), _fall(3, 2.72, 20)))
    assert "The held-out loss stays high: it fell by 9%, to 2.72" in found["stuck"].sentence
    assert "validation_follows" not in found


def _without_held_out(rows):
    return [replace(row, eval_loss=None) for row in rows if row.step]


@pytest.mark.parametrize("seed", range(5))
def test_a_training_loss_alone_shows_that_it_is_stuck(seed):
    found = _found(_without_held_out(_rows(_noisy(_fall(3, 2.7, 8), 0.02, seed), _fall(3, 2.8))))
    assert set(found) == {"stuck", "nothing_held_out"}
    assert "The training loss stays high: it fell by only" in found["stuck"].sentence
    assert "a higher learning rate (--lr 0.0005), more epochs (--epochs 10)" in found["stuck"].advice


@pytest.mark.parametrize("train", [_fall(3, 0.6), _fall(3, 2.0, 1), _fall(0.5, 0.45, 20)])
def test_a_training_loss_that_falls_far_or_on_or_is_low_is_not_stuck(train):
    assert "stuck" not in _found(_without_held_out(_rows(_noisy(train, 0.02), train)))


def test_held_out_pairs_that_win_nothing():
    found = _found(_rows(_noisy(_fall(3, 2.0), 0.05), lambda now: 2.9 - 0.01 * now))
    assert found["no_better_than_before"].severity == "warning"
    assert "2.90 before, 2.89 at best" in found["no_better_than_before"].sentence
    assert not {"validation_follows", "learning_rate_too_low"} & set(found)


@pytest.mark.parametrize(("warmup", "long"), [(10, False), (24, False), (30, True), (71, True)])
def test_warm_up_is_measured_against_the_whole_run(warmup, long):
    rows = _rows(_noisy(_fall(3, 0.6), 0.1), _fall(2.9, 0.75), warmup=warmup)
    assert ("warmup_too_long" in _found(rows)) is long
    if long:
        assert f"{warmup} of 100 steps" in _found(rows)["warmup_too_long"].sentence


def test_warm_up_is_not_blamed_when_early_stopping_made_the_run_short():
    rows = [row for row in _good() if row.step <= 30]
    assert "warmup_too_long" in _found(rows)
    assert "warmup_too_long" not in _found(rows, Facts(planned_epochs=EPOCHS))


def test_a_run_without_held_out_pairs_says_that_nobody_knows():
    rows = [MetricsRow(*[*list(vars(row).values())[:3], None, *list(vars(row).values())[4:]]) for row in _good()]
    found = _found(rows[1:])
    assert set(found) == {"nothing_held_out", "smooth_fall"}


@pytest.mark.parametrize(
    ("facts", "name", "severity"),
    [
        (Facts(train_pairs=99), "too_few_pairs", "note"),
        (Facts(train_pairs=100), None, None),
        (Facts(validation_pairs=19), "few_held_out", "note"),
        (Facts(validation_pairs=20), None, None),
        (Facts(in_both_parts=3, validation_pairs=49), "leak", "warning"),
        (Facts(in_both_parts=0), None, None),
        (Facts(answers_cut=2, train_pairs=400, validation_pairs=40, max_length=512), "answers_cut", "note"),
        (Facts(answers_cut=22, train_pairs=400, validation_pairs=40, max_length=512), "answers_cut", "warning"),
        (Facts(answers_cut=0), None, None),
        (Facts(asked=20, ended=20), "learned_to_stop", "good"),
        (Facts(asked=10, ended=10), "learned_to_stop", "good"),
        (Facts(asked=9, ended=9), None, None),
        (Facts(asked=1, ended=1), None, None),
        (Facts(asked=9, ended=2), "does_not_stop", "note"),
        (Facts(endings_asked=49, endings_known=48), "learned_to_stop", "good"),
        (Facts(endings_asked=9, endings_known=9), None, None),
        (Facts(endings_asked=49, endings_known=45), None, None),
        (Facts(endings_asked=49, endings_known=30), "does_not_stop", "note"),
        (Facts(endings_asked=9, endings_known=0), "does_not_stop", "note"),
        (Facts(endings_asked=49, endings_known=3), "does_not_stop", "warning"),
        (Facts(endings_asked=0, endings_known=0), None, None),
        (Facts(asked=20, ended=18), "does_not_stop", "note"),
        (Facts(asked=20, ended=3), "does_not_stop", "warning"),
        (Facts(asked=0, ended=0), None, None),
        (Facts(seconds=7201.0, device="a CPU"), "slow", "note"),
        (Facts(seconds=1200.0), None, None),
    ],
)
def test_facts_that_no_curve_shows(facts, name, severity):
    extra = set(_found(_good(), facts)) - set(_found(_good()))
    assert extra == ({name} if name else set())
    if name:
        assert _found(_good(), facts)[name].severity == severity


def test_whether_it_stops_is_told_by_what_it_wrote_where_it_was_asked_and_else_by_what_it_read():
    read = _found(_good(), Facts(endings_asked=49, endings_known=48))["learned_to_stop"]
    assert "it would end 48 of 49 held-out answers just where they end" in read.sentence
    both = Facts(endings_asked=49, endings_known=48, asked=20, ended=3)
    assert "Only 3 of 20 answers ended by themselves" in _found(_good(), both)["does_not_stop"].sentence
    assert "learned_to_stop" not in _found(_good(), both)
    never = _found(_good(), Facts(endings_asked=49, endings_known=0))["does_not_stop"]
    assert "would stop after 0" in never.sentence
    assert "phinetune compare" in never.advice


def test_a_slow_run_is_told_of_batch_and_length_where_they_would_help():
    long = Facts(seconds=9000.0, device="NVIDIA T4, 15 GB", batch_size=4, grad_accum=4, max_length=512)
    advice = _found(_good(), replace(long, train_pairs=5))["slow"].advice  # 100 tokens a step, 20 steps an epoch
    assert "--batch-size 16 --grad-accum 1" in advice
    assert "Pairs have 400 tokens on average" in advice
    assert "--max-length 256" in advice
    short = _found(_good(), replace(long, train_pairs=100, device="CPU, 2 threads"))["slow"].advice
    assert "--batch-size" not in short
    assert "--max-length" not in short


@pytest.mark.parametrize(("epochs", "dropout", "advised"), [(10, 0.1, False), (3, 0.1, True), (10, 0.05, True)])
def test_a_preset_is_advised_unless_the_run_had_its_values(epochs, dropout, advised):
    facts = Facts(train_pairs=30, planned_epochs=epochs, lora_dropout=dropout)
    assert ("--preset small-data" in _found(_good(), facts)["too_few_pairs"].advice) is advised


def test_the_worst_stands_first_and_bad_news_come_with_advice():
    found = diagnose(_with(_good(), {60: 4.0}), Facts(in_both_parts=1, train_pairs=80))
    assert [d.severity for d in found] == sorted((d.severity for d in found), key=["warning", "note", "good"].index)
    assert found[0].name == "leak"
    assert all(bool(d.advice) == (d.severity != "good") for d in found)
    assert len({rule.__name__ for rule in RULES}) == len(RULES) > 20


@pytest.mark.parametrize("count", range(13))
def test_short_and_empty_runs_are_read_without_a_fuss(count):
    assert isinstance(diagnose(_good()[: count + 1]), list)
    assert diagnose(_good()[:1]) == diagnose([]) == []


def test_a_run_folder_alone_is_enough(tmp_path):
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder)
    for row in _good():
        if row.step:
            log.consume(StepDone(row.step, row.epoch, row.train_loss, row.learning_rate, 1.0, 100, 1.0))
        if row.eval_loss is not None:
            log.consume(Validated(row.step, row.epoch, row.eval_loss, is_best=True, tokens=1, seconds=1.0))
    log.write()
    assert diagnose_folder(folder) == diagnose(_good())
    folder.metrics_json.write_text(json.dumps({"train_pairs": 50, "answers_cut": 4, "validation_pairs": 30}))
    folder.config_json.write_text(json.dumps({"settings": {"data": {"max_length": 64}}}))
    found = {d.name: d for d in diagnose_folder(folder, in_both_parts=2, asked=10, ended=10)}
    assert {"too_few_pairs", "answers_cut", "leak", "learned_to_stop"} < set(found)
    assert "--max-length 128" in found["answers_cut"].advice
    folder.config_json.write_text("[")
    with pytest.raises(RunError, match=r"training_config.json is damaged"):
        diagnose_folder(folder)


class _Pair:
    def __init__(self, question: str, answer: str, row: int = 1) -> None:
        self.question, self.answer, self.row = question, answer, row


def _corpus(train, held_out) -> Corpus:
    encoder = Encoder(toys.tokenizer(), PromptTemplate(), 128)
    return Corpus(*(encoder.examples([_Pair(*pair) for pair in part]) for part in (train, held_out)))


@pytest.fixture
def one_core():
    """A toy is too small to share between cores: with two of them busy it takes ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _trained(corpus: Corpus, **changes) -> dict[str, Diagnosis]:
    """A real run on a toy model, and what it shows."""
    options = {"epochs": 4, "learning_rate": 5e-3, "batch_size": 4, "grad_accum": 1, "patience": 0} | changes
    settings = TrainSettings(eval_steps=4, save_steps=1000, **options)
    model = lora.attach(toys.llama(), LoraSettings(r=8, dropout=0.0), "toy", settings.seed)
    with tempfile.TemporaryDirectory() as place:
        log = MetricsLog(RunFolder(Path(place)))
        for event in fit(model, corpus, settings, Checkpoints(RunFolder(Path(place)), {}, 1)):
            log.consume(event)
        return _found(log.rows, Facts(planned_epochs=settings.epochs, lora_r=8))


ASKED_AGAIN = [(f"{question} ({i})", answer) for i, (question, answer) in enumerate(toys.PAIRS * 5)]


def test_real_runs_with_a_good_and_with_bad_learning_rates(one_core):
    corpus = _corpus(ASKED_AGAIN[:24], ASKED_AGAIN[24:])
    good = _trained(corpus, epochs=10, learning_rate=1e-2)
    assert set(good) == {"validation_follows", "smooth_fall", "levelled_off"}
    assert set(_trained(corpus, learning_rate=1e-6)) == {"learning_rate_too_low"}
    assert "too_few_steps" in _trained(corpus, epochs=1, learning_rate=1e-4)
    assert "too_short" in _trained(corpus, epochs=2)
    high = _trained(corpus, epochs=10, learning_rate=0.03)
    assert {"learning_rate_too_high", "held_up"} & set(high)
    assert not {"smooth_fall", "too_short"} & set(high)


def test_real_runs_that_learn_by_heart_and_that_warm_up_for_too_long(one_core):
    found = _trained(_corpus(toys.PAIRS[:3], toys.PAIRS[3:]), epochs=60, learning_rate=3e-2)
    assert "overfitting" in found
    assert "gap" in found
    assert "warmup_too_long" in _trained(_corpus(ASKED_AGAIN[:24], ASKED_AGAIN[24:]), warmup_steps=18)


def _risen() -> list[MetricsRow]:
    return _rows(_noisy(_fall(3, 0.3), 0.1), lambda now: 1.5 + 6 * (now - 0.4) ** 2)


def _by_heart(kept: int, last: int, **facts) -> Facts:
    known = {"keep": "best", "kept_step": 40, "own_asked": 40, "own_right_kept": kept, "own_right_last": last}
    return Facts(**(known | facts))


def test_an_early_state_that_knows_less_than_the_last_is_told_with_what_to_do():
    found = _found(_risen(), _by_heart(3, 36))
    told = found["last_knows_more"]
    assert (told.severity, told.number) == ("warning", 33)
    assert "step 40" in told.sentence
    assert "3 of 40 of your own training questions word for word; the last one, of step 100, 36." in told.sentence
    assert "--resume --keep last, which trains nothing again" in told.advice
    stopped = _found(_risen(), _by_heart(3, 36, stopped="early_stopping"))["last_knows_more"]
    assert "goes on to the planned end" in stopped.advice


def test_fewer_epochs_are_not_advised_where_the_sheet_itself_is_not_known_yet():
    assert "Fewer epochs" in _found(_risen(), _by_heart(30, 31))["overfitting"].advice
    advice = _found(_risen(), _by_heart(3, 36, lora_dropout=0.05))["overfitting"].advice
    assert "epochs" not in advice
    assert "more pairs, and more dropout (--lora-dropout 0.1)" in advice


@pytest.mark.parametrize(
    "facts",
    [
        _by_heart(30, 33),  # less than a tenth more
        _by_heart(3, 36, keep="last", kept_step=100),
        _by_heart(36, 36, kept_step=100),
        Facts(),
        _by_heart(0, 2, own_asked=5),
    ],
)
def test_nothing_is_said_of_the_last_state_where_it_hardly_knows_more(facts):
    assert "last_knows_more" not in _found(_risen(), facts)


def test_a_last_state_that_was_asked_for_is_no_warning_and_its_price_is_named():
    found = _found(_risen(), _by_heart(38, 38, keep="last", kept_step=100))
    assert found["overfitting"].severity == "note"
    assert "The last state was kept all the same, as --keep last asks" in found["overfitting"].sentence
    assert "--keep best" in found["overfitting"].advice
    assert (found["by_heart"].severity, found["by_heart"].number) == ("good", 0.95)
    assert "38 of 40" in found["by_heart"].sentence


def test_a_last_state_that_knows_little_is_told_to_train_longer():
    found = _found(_risen(), _by_heart(7, 7, keep="last", kept_step=100))
    assert "answers 7 of 40" in found["not_by_heart"].sentence
    assert "--epochs 10" in found["not_by_heart"].advice
    assert "not_by_heart" not in _found(_risen(), _by_heart(7, 7))


def test_the_preset_that_trains_longer_does_not_stand_beside_a_rise():
    assert "--preset small-data" in _found(_good(), Facts(train_pairs=40))["too_few_pairs"].advice
    assert "--preset" not in _found(_risen(), Facts(train_pairs=40))["too_few_pairs"].advice


def test_one_word_for_the_loss_on_pairs_that_were_held_out():
    said = [each for rows in (_good(), _risen()) for each in diagnose(rows, _by_heart(3, 36, validation_pairs=5))]
    assert said
    assert not [each for each in said if "alidation" in each.sentence + each.advice]
