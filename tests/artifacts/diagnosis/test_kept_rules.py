"""What is said of the state that was kept, beside the last one."""

from __future__ import annotations

import drawn
import pytest

from phinetune.artifacts.diagnosis import Facts


def test_an_early_state_that_knows_less_than_the_last_is_told_with_what_to_do():
    found = drawn.found(drawn.risen(), drawn.by_heart(3, 36))
    told = found["last_knows_more"]
    assert (told.severity, told.number) == ("warning", 33)
    assert "step 40" in told.sentence
    assert "3 of 40 of your own training questions word for word; the last one, of step 100, 36." in told.sentence
    assert "--resume --keep last, which trains nothing again" in told.advice
    stopped = drawn.found(drawn.risen(), drawn.by_heart(3, 36, stopped="early_stopping"))["last_knows_more"]
    assert "goes on to the planned end" in stopped.advice


def test_fewer_epochs_are_not_advised_where_the_sheet_itself_is_not_known_yet():
    assert "Fewer epochs" in drawn.found(drawn.risen(), drawn.by_heart(30, 31))["overfitting"].advice
    advice = drawn.found(drawn.risen(), drawn.by_heart(3, 36, lora_dropout=0.05))["overfitting"].advice
    assert "epochs" not in advice
    assert "more pairs, and more dropout (--lora-dropout 0.1)" in advice


@pytest.mark.parametrize(
    "facts",
    [
        drawn.by_heart(30, 33),  # less than a tenth more
        drawn.by_heart(3, 36, keep="last", kept_step=100),
        drawn.by_heart(36, 36, kept_step=100),
        Facts(),
        drawn.by_heart(0, 2, own_asked=5),
    ],
)
def test_nothing_is_said_of_the_last_state_where_it_hardly_knows_more(facts):
    assert "last_knows_more" not in drawn.found(drawn.risen(), facts)


def test_a_last_state_that_was_asked_for_is_no_warning_and_its_price_is_named():
    found = drawn.found(drawn.risen(), drawn.by_heart(38, 38, keep="last", kept_step=100))
    assert found["overfitting"].severity == "note"
    assert "The last state was kept all the same, as --keep last asks" in found["overfitting"].sentence
    assert "--keep best" in found["overfitting"].advice
    assert (found["by_heart"].severity, found["by_heart"].number) == ("good", 0.95)
    assert "38 of 40" in found["by_heart"].sentence


def test_a_last_state_that_knows_little_is_told_to_train_longer():
    found = drawn.found(drawn.risen(), drawn.by_heart(7, 7, keep="last", kept_step=100))
    assert "answers 7 of 40" in found["not_by_heart"].sentence
    assert "--epochs 10" in found["not_by_heart"].advice
    assert "not_by_heart" not in drawn.found(drawn.risen(), drawn.by_heart(7, 7))
