"""What happens on the way of a run, and what is said of it: it is interrupted, does not fit, becomes unstable."""

from __future__ import annotations

import csv
import json
import math
import re

import pytest
import torch
import toys
from allocator import FailingAllocator, run_out
from whole_runs import train

import phinetune
from phinetune import PhinetuneError
from phinetune.errors import ModelError, RunError, TrainingError
from phinetune.events import (
    Finished,
    ModelLoaded,
    RolledBack,
    SheetRead,
    Started,
    StepDone,
    Warned,
)
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.training.learning_rate import suited_rate


def test_events_tell_the_story_in_order(toy_base, toy_sheet, tmp_path):
    events = []
    train(toy_sheet, toy_base, tmp_path, on_event=events.append)
    kinds = [type(event) for event in events]
    assert [k for k in kinds if k in (SheetRead, ModelLoaded, Started, Finished)] == [
        SheetRead,
        ModelLoaded,
        Started,
        Finished,
    ]
    assert [e.code for e in events if isinstance(e, Warned)] == ["few_pairs"]


def test_an_interrupted_run_goes_on_and_ends_like_an_uninterrupted_one(toy_base, toy_sheet, tmp_path):
    whole = train(toy_sheet, toy_base, tmp_path / "whole")
    seen = []
    part = train(toy_sheet, toy_base, tmp_path / "part", on_event=seen.append, stop_requested=lambda: len(seen) > 7)
    assert part.stopped == "interrupted"
    assert not part.folder.is_finished
    with pytest.raises(RunError, match="did not finish"):
        train(toy_sheet, toy_base, tmp_path / "part")
    rest = train(toy_sheet, toy_base, tmp_path / "part", resume=True)
    for name in ("adapter_model.safetensors", "phinetune.json"):
        assert (rest.folder.model / name).read_bytes() == (whole.folder.model / name).read_bytes()

    def figures(run):
        rows = csv.DictReader(run.folder.metrics_csv.open())
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    assert figures(rest) == figures(whole)
    assert 0 < part.steps < rest.steps


def test_lr_auto_is_the_rate_that_suits_is_said_and_goes_on_in_a_resume(toy_base, toy_sheet, tmp_path):
    rate = suited_rate(toys.phi().config.hidden_size, answers_repeat=True)
    events = []
    part = train(
        toy_sheet, toy_base, tmp_path, lr="auto", epochs=4, warmup_steps=0, on_event=events.append,
        stop_requested=lambda: sum(isinstance(event, StepDone) for event in events) >= 2,
    )  # fmt: skip
    assert part.stopped == "interrupted"
    [loaded] = [event for event in events if isinstance(event, ModelLoaded)]
    assert any(note.startswith(f"Learning rate {rate}: it suits") for note in loaded.notes)
    whole = train(toy_sheet, toy_base, tmp_path, lr="auto", epochs=4, warmup_steps=0, resume=True)
    given = train(toy_sheet, toy_base, tmp_path / "given", lr=rate, epochs=4, warmup_steps=0)
    for run in (whole, given):
        config = json.loads(run.folder.config_json.read_text())
        assert config["settings"]["train"]["learning_rate"] == rate
    assert (whole.folder.model / "adapter_model.safetensors").read_bytes() == (
        given.folder.model / "adapter_model.safetensors"
    ).read_bytes()


def test_a_resume_with_another_setting_is_refused_with_the_difference(toy_base, toy_sheet, tmp_path):
    seen = []
    train(toy_sheet, toy_base, tmp_path, on_event=seen.append, stop_requested=lambda: len(seen) > 6)
    with pytest.raises(RunError, match=r"lora.r: 16 before, 8 now"):
        train(toy_sheet, toy_base, tmp_path, resume=True, lora_r=8)


def test_a_resume_with_another_seed_says_that_and_nothing_of_the_sheet(toy_base, toy_sheet, tmp_path):
    seen = []
    train(toy_sheet, toy_base, tmp_path, on_event=seen.append, stop_requested=lambda: len(seen) > 6)
    with pytest.raises(RunError) as refused:
        train(toy_sheet, toy_base, tmp_path, resume=True, seed=7)
    said = [line.strip() for line in refused.value.message.splitlines()[1:]]
    assert said == ["--seed: 42 before, 7 now"]


def test_a_cut_answer_is_warned_about(toy_base, tmp_path):
    sheet = toys.write_sheet(tmp_path / "s.xlsx", [*toys.PAIRS, ("Long?", "word " * 90)])
    events = []
    train(sheet, toy_base, tmp_path / "out", epochs=1, max_length=100, on_event=events.append)
    [cut] = [e for e in events if isinstance(e, Warned) and e.code == "answers_cut"]
    assert "1 answer is longer" in cut.message
    assert "(row 8)" in cut.message


def test_one_question_alone_trains_without_validation_and_says_so(toy_base, tmp_path):
    sheet = toys.write_sheet(tmp_path / "s.xlsx", [("Who?", "Me."), ("who", "Me too.")])
    events = []
    run = train(sheet, toy_base, tmp_path / "out", on_event=events.append)
    assert run.eval_loss is None
    assert "no_validation" in [e.code for e in events if isinstance(e, Warned)]
    assert json.loads(run.folder.metrics_json.read_text())["best_eval_loss"] is None


def test_an_architecture_whose_layers_mix_the_pairs_of_a_row_is_refused(toy_sheet, tmp_path):
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    config = GPTNeoConfig(
        vocab_size=512, hidden_size=32, num_layers=2, attention_types=[[["global"], 2]], num_heads=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    base = toys.save(tmp_path / "base", GPTNeoForCausalLM(config))
    with pytest.raises(PhinetuneError, match="would let one pair of a row see another"):
        train(toy_sheet, base, tmp_path / "run")


def test_a_resume_passes_over_a_damaged_checkpoint_and_says_so(toy_base, toy_sheet, tmp_path):
    seen = []
    train(toy_sheet, toy_base, tmp_path, on_event=seen.append, stop_requested=lambda: len(seen) > 12, epochs=6)
    folders = sorted((tmp_path / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    assert len(folders) > 1
    (folders[-1] / "state.json").write_text("{}")
    events = []
    train(toy_sheet, toy_base, tmp_path, resume=True, on_event=events.append, epochs=6)
    [said] = [e.message for e in events if isinstance(e, Warned) and e.code == "damaged_checkpoint"]
    assert folders[-1].name in said
    assert folders[-2].name in said


def test_a_run_that_does_not_fit_says_how_much_it_takes_and_what_to_change(toy_base, toy_sheet, tmp_path):
    said = []
    with FailingAllocator() as allocator:

        def on_event(event):
            if isinstance(event, StepDone | Warned):
                said.append(event)
                allocator.fail_in = 5

        with pytest.raises(TrainingError, match=r"does not fit in the memory .* needs about 0\.\d GB") as caught:
            train(toy_sheet, toy_base, tmp_path, on_event=on_event)
    assert "--max-length" in caught.value.hint
    assert [e.code for e in said if isinstance(e, Warned)][-1] == "out_of_memory"


def test_a_run_that_ran_out_of_memory_ends_in_a_model_all_the_same(toy_base, toy_sheet, tmp_path):
    with FailingAllocator() as allocator:

        def on_event(event):
            if isinstance(event, StepDone) and event.step == 2:
                allocator.fail_in = 5

        run = train(toy_sheet, toy_base, tmp_path, on_event=on_event)
    assert allocator.failures == 1
    assert run.stopped == "finished"
    assert run.folder.is_finished


def test_a_base_model_that_does_not_fit_is_told_with_its_size(toy_base, toy_sheet, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: run_out())
    with pytest.raises(ModelError, match=r"does not fit in memory: its weights alone take 0\.0 GB") as caught:
        train(toy_sheet, toy_base, tmp_path)
    assert "smaller --model" in caught.value.hint


@pytest.fixture(scope="module")
def failed_run(toy_base, toy_sheet, tmp_path_factory):
    """A learning rate that no halving saves in fp16: real overflow, nothing is injected."""
    out, events = tmp_path_factory.mktemp("failed"), []
    with pytest.raises(TrainingError, match="became unstable: .* after going back twice already") as caught:
        train(toy_sheet, toy_base, out, lr=0.9, dtype="fp16", epochs=20, batch_size=4, on_event=events.append)
    return out, events, caught.value


def test_a_run_that_became_unstable_went_back_twice_and_said_so(failed_run):
    _, events, error = failed_run
    assert [e.code for e in events if isinstance(e, Warned)].count("rolled_back") == 2
    assert [e.learning_rate_factor for e in events if isinstance(e, RolledBack)] == [0.5, 0.25]
    assert "--lr at an eighth of its value" in error.hint  # a quarter has just failed
    assert "phinetune report" in error.hint


def test_a_run_that_became_unstable_leaves_what_explains_it(failed_run):
    out, _, _ = failed_run
    assert not RunFolder(out).is_finished
    figures = json.loads(RunFolder(out).metrics_json.read_text())
    assert (figures["stopped"], figures["rollbacks"]) == ("failed", 2)
    first = phinetune.diagnose(out)[0]
    assert (first.name, first.severity) == ("unstable", "warning")
    page = phinetune.report(out).read_text()
    assert "became unstable" in page
    assert "no tuned model" in page


def test_what_an_unstable_run_keeps_is_sound(failed_run):
    out, _, error = failed_run
    folder = RunFolder(out)
    steps = folder.checkpoint_steps()
    for step in steps:
        weights = lora.read_weights(folder.checkpoint(step))
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    kept = re.search(r"checkpoints/checkpoint-(\d+)", error.message)
    assert kept is None or int(kept[1]) in steps


def test_losses_are_finite_in_half_precision_as_an_older_gpu_would_train(toy_base, toy_sheet, tmp_path):
    exact = train(toy_sheet, toy_base, tmp_path / "a")
    half = train(toy_sheet, toy_base, tmp_path / "b", dtype="fp16")
    assert math.isfinite(half.eval_loss)
    assert half.eval_loss == pytest.approx(exact.eval_loss, rel=0.02)
