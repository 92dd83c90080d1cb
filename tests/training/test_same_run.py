from __future__ import annotations

from pathlib import Path

import pytest

from phinetune.errors import RunError
from phinetune.training.same_run import other_machine, refuse_another_run

RUN = {
    "model": "toy", "pairs": "abc", "pairs.train": 27, "template": "{question}{answer}", "data.limit": None,
    "train.learning_rate": 1e-3, "train.weight_decay": 0.01, "train.examples_per_step": 16, "machine.torch": "2.13",
}  # fmt: skip


def _refusal(**changes) -> str:
    with pytest.raises(RunError) as refused:
        refuse_another_run(RUN, RUN | changes, Path("out"))
    return str(refused.value)


def test_differences_have_the_names_that_a_person_types(tmp_path):
    said = _refusal(**{"train.learning_rate": 2e-3, "train.weight_decay": 0.1, "train.examples_per_step": 8})
    assert "--lr: 0.001 before, 0.002 now" in said
    assert "--set train.weight_decay: 0.01 before, 0.1 now" in said
    assert "pairs a step (--batch-size times --grad-accum): 16 before, 8 now" in said
    assert "--resume" in said
    assert "--overwrite, and without --resume" in said


def test_where_the_pairs_come_from_matters_only_when_they_are_others():
    refuse_another_run(RUN, RUN | {"data.limit": 27}, Path())
    said = _refusal(**{"data.limit": 20, "pairs": "xyz", "pairs.train": 18})
    assert "--limit: not given before, 20 now" in said
    assert "contents of the sheet" in said
    assert "pairs to learn from: 27 before, 18 now" in said


def test_other_pairs_held_out_of_the_same_sheet_are_told_by_what_holds_them_out():
    held = {"pairs.found": "all", "data.seed": 42, "train.seed": 42}
    before, now = RUN | held, RUN | held | {"pairs": "xyz", "data.seed": 7, "train.seed": 7}
    with pytest.raises(RunError) as refused:
        refuse_another_run(before, now, Path("out"))
    assert refused.value.message.splitlines()[1:] == ["  --seed: 42 before, 7 now"]
    with pytest.raises(RunError) as refused:
        refuse_another_run(before, now | {"pairs.found": "others"}, Path("out"))
    assert refused.value.message.splitlines()[1:] == [
        "  pairs found in the sheet: all before, others now",
        "  --seed: 42 before, 7 now",
    ]
    with pytest.raises(RunError, match="contents of the sheet"):  # by a version that divides them in another way
        refuse_another_run(RUN | held, RUN | held | {"pairs": "xyz"}, Path("out"))
    refuse_another_run(RUN | held, RUN | held | {"pairs.found": "in another order"}, Path("out"))


def test_another_machine_is_no_other_run_and_is_told_apart():
    refuse_another_run(RUN, RUN | {"machine.torch": "2.14"}, Path())
    assert other_machine(RUN, RUN | {"machine.torch": "2.14"}) == "torch was 2.13 and is 2.14"
    assert other_machine(RUN, RUN) == ""


MODEL = {"model": "base", "model.config": "c1", "model.tokenizer": "t1", "model.weights": "w1"}


def test_a_model_is_known_by_what_it_is_and_not_by_its_name():
    refuse_another_run(RUN | MODEL, RUN | MODEL | {"model": "/tmp/x/base"}, Path())
    with pytest.raises(RunError) as refused:
        refuse_another_run(RUN | MODEL, RUN | MODEL | {"model.weights": "w2"}, Path())
    assert "\n  weights of the base model base: w1 before, w2 now\n" in str(refused.value)
    with pytest.raises(RunError) as refused:
        refuse_another_run(RUN | MODEL, RUN | MODEL | {"model": "other", "model.tokenizer": "t2"}, Path())
    assert "--model: base before, other now" in str(refused.value)
    assert "tokenizer of the base model: t1 before, t2 now" in str(refused.value)


def test_a_run_that_does_not_know_what_its_model_was_goes_by_the_name():
    refuse_another_run(RUN, RUN | MODEL | {"model": "toy"}, Path())
    with pytest.raises(RunError, match="--model: toy before, base now"):
        refuse_another_run(RUN, RUN | MODEL, Path())


def test_a_setting_that_an_earlier_version_did_not_know_is_no_difference():
    refuse_another_run(RUN, RUN | {"train.new": 1}, Path())
