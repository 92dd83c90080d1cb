"""What is said of settings and of the sheet, which no curve shows."""

from __future__ import annotations

from dataclasses import replace

import drawn
import pytest

from phinetune.artifacts.diagnosis import Facts


def test_a_good_run_with_hardly_any_pair_held_out_is_not_praised_for_them():
    assert set(drawn.found(drawn.good(), Facts(validation_pairs=9))) == {"few_held_out", "smooth_fall"}
    assert {"validation_follows", "levelled_off"} < set(drawn.found(drawn.good(), Facts(validation_pairs=10)))


@pytest.mark.parametrize(("warmup", "long"), [(10, False), (24, False), (30, True), (71, True)])
def test_warm_up_is_measured_against_the_whole_run(warmup, long):
    rows = drawn.rows(drawn.noisy(drawn.fall(3, 0.6), 0.1), drawn.fall(2.9, 0.75), warmup=warmup)
    assert ("warmup_too_long" in drawn.found(rows)) is long
    if long:
        assert f"{warmup} of 100 steps" in drawn.found(rows)["warmup_too_long"].sentence


def test_warm_up_is_not_blamed_when_early_stopping_made_the_run_short():
    rows = [row for row in drawn.good() if row.step <= 30]
    assert "warmup_too_long" in drawn.found(rows)
    assert "warmup_too_long" not in drawn.found(rows, Facts(planned_epochs=drawn.EPOCHS))


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
    extra = set(drawn.found(drawn.good(), facts)) - set(drawn.found(drawn.good()))
    assert extra == ({name} if name else set())
    if name:
        assert drawn.found(drawn.good(), facts)[name].severity == severity


def test_whether_it_stops_is_told_by_what_it_wrote_where_it_was_asked_and_else_by_what_it_read():
    read = drawn.found(drawn.good(), Facts(endings_asked=49, endings_known=48))["learned_to_stop"]
    assert "it would end 48 of 49 held-out answers just where they end" in read.sentence
    both = Facts(endings_asked=49, endings_known=48, asked=20, ended=3)
    assert "Only 3 of 20 answers ended by themselves" in drawn.found(drawn.good(), both)["does_not_stop"].sentence
    assert "learned_to_stop" not in drawn.found(drawn.good(), both)
    never = drawn.found(drawn.good(), Facts(endings_asked=49, endings_known=0))["does_not_stop"]
    assert "would stop after 0" in never.sentence
    assert "phinetune compare" in never.advice


def test_a_slow_run_is_told_of_batch_and_length_where_they_would_help():
    long = Facts(seconds=9000.0, device="NVIDIA T4, 15 GB", batch_size=4, grad_accum=4, max_length=512)
    advice = drawn.found(drawn.good(), replace(long, train_pairs=5))[
        "slow"
    ].advice  # 100 tokens a step, 20 steps an epoch
    assert "--batch-size 16 --grad-accum 1" in advice
    assert "Pairs have 400 tokens on average" in advice
    assert "--max-length 256" in advice
    short = drawn.found(drawn.good(), replace(long, train_pairs=100, device="CPU, 2 threads"))["slow"].advice
    assert "--batch-size" not in short
    assert "--max-length" not in short


@pytest.mark.parametrize(("epochs", "dropout", "advised"), [(10, 0.1, False), (3, 0.1, True), (10, 0.05, True)])
def test_a_preset_is_advised_unless_the_run_had_its_values(epochs, dropout, advised):
    facts = Facts(train_pairs=30, planned_epochs=epochs, lora_dropout=dropout)
    assert ("--preset small-data" in drawn.found(drawn.good(), facts)["too_few_pairs"].advice) is advised


def test_the_preset_that_trains_longer_does_not_stand_beside_a_rise():
    assert "--preset small-data" in drawn.found(drawn.good(), Facts(train_pairs=40))["too_few_pairs"].advice
    assert "--preset" not in drawn.found(drawn.risen(), Facts(train_pairs=40))["too_few_pairs"].advice
